from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE, ConfigError, Extent, Job, Mismatch, Report
from backy.verifiers.changed import STATE, TURNS, ChangedVerifier, backy_verifier, rotation


class Sparse:
    """An image that reads as zeroes, with an `x` at the beginning of some chunks; remembers what was read."""

    def __init__(self, size: int, changes: list[Extent] | None = None, wrong: set[int] | None = None) -> None:
        self.size = size
        self.read: list[int] = []
        self._changes = changes
        self._wrong = wrong or set()

    def extents(self) -> list[Extent]:
        return [Extent(0, self.size, data=True)] if self.size else []

    def changes(self) -> list[Extent] | None:
        return self._changes

    def pread(self, offset: int, length: int) -> bytes:
        index = offset // CHUNK_SIZE
        self.read.append(index)
        return (b"x" if index in self._wrong else b"").ljust(length, b"\0")


def verify(state: Path, snapshot: Sparse, image: Sparse | None = None) -> tuple[Report, list[int], list[Mismatch]]:
    image = image or Sparse(snapshot.size)
    found: list[Mismatch] = []
    told: list[int] = []
    report = ChangedVerifier(state).verify(snapshot, image, found.append, told.append)
    assert sorted(image.read) == sorted(snapshot.read)
    assert report.verifier == "changed"
    assert report.total == math.ceil(snapshot.size / CHUNK_SIZE)
    return report, sorted(image.read), found


@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 350), st.sets(st.integers(0, 349))), min_size=TURNS, max_size=TURNS),
)
def test_each_turn_a_hundredth_of_the_others_and_in_a_hundred_turns_all(
    first: int, backups: list[tuple[int, set[int]]]
) -> None:
    seen: set[int] = set()
    for turn, (total, some) in enumerate(backups, first):
        changed = {index for index in some if index < total}
        chosen = rotation(turn, total, changed)
        assert len(set(chosen)) == len(chosen)
        assert set(chosen) <= set(range(total)) - changed
        assert len(chosen) >= (total - len(changed)) / TURNS
        seen |= changed | set(chosen)
    always = min(total for total, _ in backups)
    assert seen >= set(range(always))


@pytest.mark.parametrize("total", [1, 2, 99, 100, 101, 150, 256, 4096, 15360])
def test_no_turn_is_much_longer_than_a_hundredth(total: int) -> None:
    assert max(len(rotation(turn, total, set())) for turn in range(TURNS)) <= 2 * math.ceil(total / TURNS)


def test_what_changed_is_read_and_a_hundredth_of_the_rest(tmp_path: Path) -> None:
    size = 250 * CHUNK_SIZE
    changes = [Extent(7 * CHUNK_SIZE + 5, 10, data=True), Extent(200 * CHUNK_SIZE, CHUNK_SIZE, data=False)]
    report, read, found = verify(tmp_path / STATE, Sparse(size, changes))
    assert (read, report.checked, found) == ([0, 1, 7, 100, 200], 5, [])
    report, read, _ = verify(tmp_path / STATE, Sparse(size, changes))
    assert (read, report.checked) == ([1, 7, 101, 200, 201], 5)
    assert (tmp_path / STATE).read_bytes() == b"2\n"


def test_nothing_that_changed_still_has_its_turn_checked(tmp_path: Path) -> None:
    assert verify(tmp_path / STATE, Sparse(3 * CHUNK_SIZE, []))[1] == [0]
    assert [verify(tmp_path / STATE, Sparse(3 * CHUNK_SIZE, []))[1] for _ in range(3)] == [[1], [2], [0]]


def test_the_last_chunk_is_always_read_if_it_is_a_short_one(tmp_path: Path) -> None:
    assert verify(tmp_path / STATE, Sparse(5 * CHUNK_SIZE + 1, []))[1] == [0, 5]


def test_all_is_read_if_nobody_knows_what_changed(tmp_path: Path) -> None:
    report, read, _ = verify(tmp_path / STATE, Sparse(5 * CHUNK_SIZE + 1))
    assert read == [0, 1, 2, 3, 4, 5]
    assert report.checked == report.total == 6
    assert not (tmp_path / STATE).exists()


def test_an_empty_image_has_nothing_to_read(tmp_path: Path) -> None:
    assert verify(tmp_path / STATE, Sparse(0, []))[1] == []


def test_a_chunk_that_is_wrong_is_looked_at_again_until_it_is_right(tmp_path: Path) -> None:
    size = 250 * CHUNK_SIZE
    for _ in range(2):
        _, read, found = verify(tmp_path / STATE, Sparse(size, []), Sparse(size, wrong={100}))
        assert read == [0, 100, 200]
        assert [mismatch.index for mismatch in found] == [100]
    assert verify(tmp_path / STATE, Sparse(size, []))[1] == [0, 100, 200]
    assert verify(tmp_path / STATE, Sparse(size, []))[1] == [1, 101, 201]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b"1.5"])
def test_a_state_that_can_not_be_read_is_said_and_begins_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / STATE).write_bytes(content)
    assert verify(tmp_path / STATE, Sparse(150 * CHUNK_SIZE, []))[1] == [0, 100]
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "does not tell which chunks were verified last" in warning.getMessage()
    assert (tmp_path / STATE).read_bytes() == b"1\n"


def test_it_has_no_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="percent"):
        backy_verifier(config={"type": "changed", "percent": 5}, job=Job("vm", "vm", tmp_path))
