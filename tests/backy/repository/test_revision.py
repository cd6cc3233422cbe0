from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import Statistics, Verification
from backy.errors import DamageError, RevisionNotFoundError
from backy.repository.revision import Revision, decode, encode, parse_tags, select, utc_now

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
revisions = st.builds(
    Revision,
    id=identities,
    timestamp=st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # made aware
    tags=st.lists(st.text(min_size=1), unique=True).map(tuple),
    parent=st.none() | identities,
    storage=st.sampled_from(["chunked", "cow"]),
    size=st.integers(0, 2**50),
    map_digest=st.none() | st.just("ab" * 32),
    statistics=st.none() | statistics,
    verifications=st.lists(
        st.builds(Verification, st.just("full"), st.integers(0, 9), st.integers(0, 9)), max_size=2
    ).map(tuple),
)


def make(number: int, identity: str, *tags: str) -> Revision:
    return Revision(
        id=identity,
        timestamp=EPOCH + timedelta(days=number),
        tags=tags,
        parent=None,
        storage="chunked",
        size=1,
        statistics=Statistics(duration=1.0, bytes_read=1, bytes_written=1, bytes_stored=1),
    )


def sealed(document: dict[str, object]) -> bytes:
    body = json.dumps(document, indent=2).removesuffix("\n}").encode()
    return body + b',\n  "digest": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


@given(revisions)
def test_a_record_is_read_as_it_was_written(revision: Revision) -> None:
    assert decode(encode(revision), revision.id) == revision


@given(revisions)
def test_a_record_is_json_and_its_digest_needs_a_standard_library_only(revision: Revision) -> None:
    content = encode(revision)

    assert json.loads(content)["digest"] == hashlib.sha256(content.rpartition(b',\n  "digest"')[0]).hexdigest()


def test_any_flipped_bit_of_a_record_is_noticed() -> None:
    content = encode(make(1, "KpXqR4vTn8sWzYb2Lm6HcD", "daily", "Grüße"))
    for bit in range(len(content) * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError):
            decode(bytes(changed), "KpXqR4vTn8sWzYb2Lm6HcD")


def test_any_cut_of_a_record_that_takes_more_than_white_space_is_noticed() -> None:
    content = encode(make(1, "KpXqR4vTn8sWzYb2Lm6HcD"))
    for length in range(len(content.rstrip())):
        with pytest.raises(DamageError):
            decode(content[:length], "KpXqR4vTn8sWzYb2Lm6HcD")


def test_a_record_under_another_name_is_refused() -> None:
    with pytest.raises(DamageError, match="the record of KpXqR4vTn8sWzYb2Lm6HcD; was it renamed"):
        decode(encode(make(1, "KpXqR4vTn8sWzYb2Lm6HcD")), "renamed0")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"uuid: KpXqR4vTn8sWzYb2Lm6HcD\ntimestamp: 2015-08-01T20:00:00\n", "not a revision of backy 3"),
        (b"[]", "fails its own checksum"),
        (b"\xff", "not a revision of backy 3"),
        (b"[" * 100_000, "not a revision of backy 3"),
        (sealed({"format": 4}), "has format 4"),
        (sealed({"format": 3, "id": "x"}), "is damaged: Object missing required field"),
    ],
)
def test_what_is_no_record_is_told_apart(content: bytes, cause: str) -> None:
    with pytest.raises(DamageError, match=cause):
        decode(content, "KpXqR4vTn8sWzYb2Lm6HcD")


def test_a_revision_is_complete_once_it_has_statistics() -> None:
    revision = make(1, "KpXqR4vTn8sWzYb2Lm6HcD")

    assert revision.complete
    assert not Revision(id="a" * 8, timestamp=EPOCH, tags=(), parent=None, storage="chunked", size=0).complete


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
        ("nope", "SPEC is a number"),
        ("", "SPEC is a number"),
        ("²", "SPEC is a number"),
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


def test_the_clock_is_in_utc() -> None:
    assert utc_now().tzinfo is UTC
