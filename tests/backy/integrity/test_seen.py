from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE
from backy.integrity.seen import FILE, Seen
from backy.repository.revision import Birth
from tests.revisions import make_revision

START = datetime(2026, 1, 1, tzinfo=UTC)


def birth(seq: int) -> Birth:
    time = START + timedelta(days=seq)
    return Birth(id=f"revision{seq:04}", seq=seq, timestamp=time, trusted_time=time, birth_tags=())


BACKUP = st.tuples(st.integers(0, 9), st.sets(st.integers(0, 8)), st.sets(st.integers(0, 8)), st.integers(1, 3))
"""Chunks of the image, those that are read, those that are compared, and how far the number goes on."""


@given(st.lists(BACKUP, max_size=12), st.booleans())
def test_it_knows_of_each_chunk_when_it_was_seen_last(tmp_path_factory, backups: list, reload: bool) -> None:
    folder = tmp_path_factory.mktemp("seen") if reload else None
    seq, read, compared, history = 0, {}, {}, []
    seen = Seen(history)
    for total, *indexes, step in backups:
        seq += step
        some, others = ({index for index in found if index < total} for found in indexes)
        read |= dict.fromkeys(some, seq)
        compared |= dict.fromkeys(others, seq)
        since = seen.note(birth(seq), total * CHUNK_SIZE, some, others)
        history.append(birth(seq))
        if folder:
            seen.save(folder)
            seen = Seen.load(folder, history, seq + 1)
        numbers = [compared.get(index, 0) for index in range(total)]
        assert since == (birth(min(numbers)).timestamp if numbers and min(numbers) else None)
        for index in range(12):
            assert seen.last(index) == max(read.get(index, 0), compared.get(index, 0))
        for size in (total, 12):
            coverage = seen.coverage(seq + 1, size * CHUNK_SIZE)
            assert (coverage.seq, list(coverage.compared)) == (seq + 1, [compared.get(i, 0) for i in range(size)])


def test_of_a_forgotten_revision_the_one_before_has_the_time() -> None:
    seen = Seen([birth(1), birth(3)])
    for seq in (1, 2, 3):
        seen.note(birth(seq), 2 * CHUNK_SIZE, [], [0, 1] if seq == 2 else [0])
    assert seen.note(birth(4), 2 * CHUNK_SIZE, [], [0]) == birth(1).timestamp


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=5), st.integers(1, 6))
def test_what_is_ahead_of_the_new_revision_is_not_known(tmp_path_factory, seen: list, seq: int) -> None:
    folder = tmp_path_factory.mktemp("seen")
    size = len(seen) * CHUNK_SIZE
    written = Seen()
    for number in range(1, 6):
        read, compared = ([at for at, numbers in enumerate(seen) if numbers[kind] == number] for kind in (0, 1))
        written.note(birth(number), size, read, compared)
    written.save(folder)

    history = [birth(number) for number in range(1, seq)]
    found = Seen.load(folder, history, seq)
    known = [tuple(number if number < seq else 0 for number in numbers) for numbers in seen]
    assert [found.last(index) for index in range(len(seen))] == [max(numbers) for numbers in known]
    coverage = found.coverage(seq, size)
    assert list(coverage.compared) == [compared for _, compared in known]
    assert list(coverage.left(range(len(seen)))) == list(range(len(seen)))
    # a first chunk alone is compared now
    oldest = min([seq, *(compared for _, compared in known[1:])]) if seen else 0
    assert found.note(birth(seq), size, [], range(min(len(seen), 1))) == (birth(oldest).timestamp if oldest else None)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda old: old[:-3],
        lambda old: old[:-4],
        lambda old: old[:20] + bytes([old[20] ^ 1]) + old[21:],
        lambda old: b"".join(old[at : at + 4][::-1] for at in range(0, len(old), 4)),
    ],
    ids=["empty", "cut short", "a number less", "a bit", "another byte order"],
)
def test_what_is_lost_is_less_known(tmp_path: Path, caplog, spoil) -> None:
    seen = Seen()
    for seq in (1, 2, 3):
        seen.note(birth(seq), 5 * CHUNK_SIZE, range(5), range(5) if seq < 3 else [1])
    seen.save(tmp_path)
    (tmp_path / FILE).write_bytes(spoil((tmp_path / FILE).read_bytes()))
    members = {"seq": 3, "size": 5 * CHUNK_SIZE}
    newest = make_revision("revision3", birth(3).timestamp, compared_since=birth(2).timestamp, **members)
    history = [make_revision(f"revision{seq}", birth(seq).timestamp, seq=seq) for seq in (1, 2)]

    found = Seen.load(tmp_path, [*history, newest], 4)
    assert [found.last(index) for index in range(6)] == [2, 2, 2, 2, 2, 0]
    assert found.note(birth(4), 5 * CHUNK_SIZE, [], [0]) == birth(2).timestamp
    (said,) = caplog.messages
    assert str(tmp_path / FILE) in said
    assert "not tell what was compared" in said
    # that revision was forgotten, or a chunk was never compared
    assert Seen.load(tmp_path, [history[0], newest], 4).last(0) == 0
    assert Seen.load(tmp_path, history, 4).last(0) == 0


def test_before_anything_nothing_is_known_and_nothing_is_said(tmp_path: Path, caplog) -> None:
    assert Seen.load(tmp_path, [], 1).last(0) == 0
    assert not caplog.records
