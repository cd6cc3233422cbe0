from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import LARGEST_IMAGE, Statistics, Verification
from backy.errors import DamageError, RevisionNotFoundError
from backy.repository.records import select
from backy.repository.revision import (
    Disks,
    Origin,
    Record,
    Revision,
    State,
    Trust,
    Wrong,
    parse_tags,
    tag_problem,
    utc_now,
)
from backy.repository.sealed import decode, encode
from tests.revisions import make_revision

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
LETTERS = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
identities = st.text(LETTERS, min_size=22, max_size=22)
statistics = st.builds(
    Statistics,
    duration=st.floats(0, 1e6),
    bytes_read=st.integers(0, 2**50),
    bytes_written=st.integers(0, 2**50),
    bytes_stored=st.integers(0, 2**50),
)
instants = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # made aware
tags = st.lists(st.text(min_size=1), unique=True).map(tuple)
indexes = st.lists(st.integers(0, 9)).map(tuple)
records = st.builds(
    Record,
    id=identities,
    seq=st.integers(1, 2**50),
    timestamp=instants,
    boot=st.none() | st.text(),
    boottime=st.none() | st.floats(0, 1e9),
    trusted_time=instants,
    birth_tags=tags,
    parent=st.none() | identities,
    size=st.integers(0, LARGEST_IMAGE),
    map_digest=st.just("ab" * 32),
    consistency=st.sampled_from(["guest", "crash", "none", "unknown"]),
    group=st.none() | st.builds(Disks, st.text(), st.lists(st.text()).map(tuple)),
    statistics=statistics,
    verifications=st.lists(
        st.builds(Verification, st.just("full"), st.integers(0, 9), st.integers(0, 9)), max_size=2
    ).map(tuple),
)
states = st.builds(
    State,
    id=identities,
    tags=tags,
    storage=st.none() | st.sampled_from(["chunked", "cow"]),
    distrusted=st.booleans(),
    damaged=indexes,
    wrong=st.none() | st.builds(Wrong, indexes, instants),
    verified=st.none() | instants,
    origin=st.none() | st.builds(Origin, st.text(), instants),
    unsynced_boot=st.none() | st.text(),
)


def make(number: int, identity: str, *tags: str) -> Revision:
    return make_revision(identity, EPOCH + timedelta(days=number), tags)


def read(content: bytes, identity: str) -> Record:
    return decode(content, Record, f"{identity}.rev")


def sealed(document: dict[str, object]) -> bytes:
    body = json.dumps(document, indent=2).removesuffix("\n}").encode()
    return body + b',\n  "digest": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


@given(records, states)
def test_a_record_and_a_state_are_read_as_they_were_written(record: Record, state: State) -> None:
    assert decode(encode(record), Record, f"{record.id}.rev") == record
    assert decode(encode(state), State, f"{state.id}.state") == state


@given(records | states)
def test_a_record_is_json_and_its_digest_needs_a_standard_library_only(document: Record | State) -> None:
    content = encode(document)

    assert json.loads(content)["digest"] == hashlib.sha256(content.rpartition(b',\n  "digest"')[0]).hexdigest()


def test_any_flipped_bit_of_a_record_is_noticed() -> None:
    content = encode(make(1, "KpXqR4vTn8sWzYb2Lm6HcD", "daily", "Grüße").record)
    for bit in range(len(content) * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError):
            read(bytes(changed), "KpXqR4vTn8sWzYb2Lm6HcD")


def test_any_cut_of_a_record_that_takes_more_than_white_space_is_noticed() -> None:
    content = encode(make(1, "KpXqR4vTn8sWzYb2Lm6HcD").record)
    for length in range(len(content.rstrip())):
        with pytest.raises(DamageError):
            read(content[:length], "KpXqR4vTn8sWzYb2Lm6HcD")


def test_a_record_under_another_name_is_refused() -> None:
    with pytest.raises(DamageError, match="belongs to revision KpXqR4vTn8sWzYb2Lm6HcD; was it renamed"):
        read(encode(make(1, "KpXqR4vTn8sWzYb2Lm6HcD").record), "renamed0")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"uuid: KpXqR4vTn8sWzYb2Lm6HcD\ntimestamp: 2015-08-01T20:00:00\n", "not a file of backy 3"),
        (b"", "fails its own checksum"),
        (b"[]", "not a file of backy 3"),
        (b"\xff", "not a file of backy 3"),
        (b"[" * 100_000, "not a file of backy 3"),
        (sealed({"format": 4}), "has format 4"),
        (sealed({"format": 3, "id": "x"}), "is damaged: Object missing required field"),
    ],
)
def test_what_is_no_record_is_told_apart(content: bytes, cause: str) -> None:
    with pytest.raises(DamageError, match=cause):
        read(content, "KpXqR4vTn8sWzYb2Lm6HcD")


@pytest.mark.parametrize(
    ("state", "trust", "doubtful", "suspect"),
    [
        ({}, Trust.TRUSTED, False, False),
        ({"verified": EPOCH}, Trust.VERIFIED, False, False),
        ({"distrusted": True}, Trust.DISTRUSTED, True, True),
        ({"distrusted": True, "damaged": (1,)}, Trust.DISTRUSTED, True, False),
        ({"verified": EPOCH, "wrong": Wrong((1,), EPOCH)}, Trust.WRONG, True, False),
        ({"distrusted": True, "wrong": Wrong((1,), EPOCH)}, Trust.DISTRUSTED, True, True),
    ],
)
def test_the_state_tells_how_far_a_revision_is_trusted(
    state: dict, trust: Trust, doubtful: bool, suspect: bool
) -> None:
    revision = make(1, "KpXqR4vTn8sWzYb2Lm6HcD").changed(**state)

    assert (revision.trust, revision.doubtful, revision.suspect) == (trust, doubtful, suspect)


def test_a_partial_verification_says_how_far_it_looked() -> None:
    assert str(Verification("full", 4, 4)) == "verified"
    assert str(Verification("sample", 1, 4)) == "verified 1 of 4 chunks"


@st.composite
def histories(draw: st.DrawFn) -> list[Revision]:
    """Few letters and short ids, so that numbers, tags, ids and their beginnings collide."""
    names = draw(st.lists(st.text("12al", min_size=1, max_size=4), unique=True, max_size=6))
    tags = st.lists(st.sampled_from(["1", "a", "1a", "last", "latest", "daily"]), max_size=2)
    return [make(number, name, *draw(tags)) for number, name in enumerate(names)]


def expected(history: list[Revision], specification: str) -> Revision | None:
    """Say by the rules as they are written what SPEC stands for."""
    newest_first = history[::-1]
    if specification.isdecimal():
        return dict(enumerate(newest_first)).get(int(specification))
    answers = [
        [revision for revision in newest_first if revision.id == specification],
        newest_first[:1] if specification in ("last", "latest") else [],
        [revision for revision in newest_first if specification in revision.tags][:1],
        [revision for revision in newest_first if specification and revision.id.startswith(specification)],
    ]
    first = next((answer for answer in answers if answer), [])
    return first[0] if len(first) == 1 else None


@given(histories(), st.text("012al", max_size=4) | st.sampled_from(["last", "latest", "daily", "1a", "nope"]))
def test_spec_stands_for_what_the_rules_say(history: list[Revision], specification: str) -> None:
    answer = expected(history, specification)
    if answer is None:
        with pytest.raises(RevisionNotFoundError):
            select(history, specification)
    else:
        assert select(history, specification) is answer


@pytest.mark.parametrize(
    ("specification", "cause"),
    [
        ("7", "numbered from 0, the newest, to 1"),
        ("ab", "ambiguous: it begins the ids abd, abc"),
        ("nope", "there are: last, "),
        ("", "there are: last, "),
        ("²", "there are: last, "),
    ],
)
def test_what_nothing_answers_to_is_explained(specification: str, cause: str) -> None:
    with pytest.raises(RevisionNotFoundError, match=cause):
        select([make(0, "abc"), make(1, "abd")], specification)


def test_an_empty_history_has_no_revision() -> None:
    with pytest.raises(RevisionNotFoundError, match="no complete revision yet"):
        select([], "latest")


def test_tags_are_sorted_stripped_and_unique() -> None:
    assert parse_tags("weekly, daily,daily ,manual:before upgrade") == ("daily", "manual:before upgrade", "weekly")


@pytest.mark.parametrize("text", ["", ",", "daily,", " ", "a,,b", "a\nb", "a\x1b[31m", "a\x00"])
def test_empty_tags_and_control_characters_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        parse_tags(text)


@pytest.mark.parametrize("tag", ["0", "007", "٣", "last", "latest"])
def test_a_tag_is_nothing_by_which_another_revision_is_named(tag: str) -> None:
    assert tag_problem(tag) == parse_problem(tag)
    assert tag_problem(tag).startswith(f"'{tag}' can be no tag: '-r {tag}' means the revision of that ")
    assert parse_tags(f"x{tag}") == (f"x{tag}",)


def test_a_tag_that_is_given_by_hand_has_a_name() -> None:
    for text in ("manual:", "manual: ", "daily,manual:"):
        assert "has no name behind the colon" in parse_problem(text)
    assert parse_tags("manual:0") == ("manual:0",)


@given(st.text())
def test_what_is_a_tag_is_one_however_it_is_given(text: str) -> None:
    alone = tag_problem(text) is None
    try:
        assert (parse_tags(text) == (text,)) == alone
    except ValueError:
        assert not alone


def parse_problem(text: str) -> str:
    with pytest.raises(ValueError, match="tag") as refused:
        parse_tags(text)
    return str(refused.value)


def test_the_clock_is_in_utc() -> None:
    assert utc_now().tzinfo is UTC


@given(states, states)
def test_doubt_is_added_and_none_is_lifted(one: State, other: State) -> None:
    """What is doubted by either is doubted by both together, and what none of both doubts is not."""
    one, other = one.with_doubt_of(one), other.with_doubt_of(other)  # sorted, each index once, as states are written
    both = one.with_doubt_of(other)
    assert both == one.with_doubt_of(both)
    assert both.with_doubt_of(one) == both == both.with_doubt_of(other)
    assert both.distrusted == (one.distrusted or other.distrusted)
    assert {*one.damaged, *other.damaged} >= set(both.damaged)
    if both.distrusted and both.damaged:
        assert set(both.damaged) == {*one.damaged, *other.damaged}
    wrong = {index for state in (one, other) if state.wrong for index in state.wrong.chunks}
    assert set(both.wrong.chunks if both.wrong else ()) == wrong
    assert (both.tags, both.storage, both.origin) == (one.tags, one.storage, one.origin)
    assert both.verified in {one.verified, None}
    assert one.with_doubt_of(State(id="x", tags=(), storage=None)) == one
