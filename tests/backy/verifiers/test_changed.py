from __future__ import annotations

import pytest

from backy.api import CHUNK_SIZE, ConfigError, Coverage, Extent, Mismatch, Report, chunk_count
from backy.verifiers.verifiers import ChangedVerifier, changed


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


def verify(
    snapshot: Sparse, image: Sparse | None = None, seq: int = 100, compared: list[int] | None = None
) -> tuple[Report, list[int], list[Mismatch]]:
    """Compare as in revision `seq`, where all was compared in the one before unless `compared` says otherwise."""
    image = image or Sparse(snapshot.size)
    found: list[Mismatch] = []
    coverage = Coverage(seq, [seq - 1] * chunk_count(snapshot.size) if compared is None else compared)
    report = ChangedVerifier(100).verify(snapshot, image, found.append, lambda _: None, coverage)
    assert sorted(image.read) == sorted(snapshot.read)
    assert report.verifier == "changed"
    assert list(report.compared) == sorted(image.read) or snapshot.changes() is None
    return report, sorted(image.read), found


def test_what_changed_is_read_and_what_is_due() -> None:
    size = 250 * CHUNK_SIZE
    changes = [Extent(7 * CHUNK_SIZE + 5, 10, data=True), Extent(200 * CHUNK_SIZE, CHUNK_SIZE, data=False)]
    assert verify(Sparse(size, changes), seq=100)[1] == [0, 7, 100, 200]
    assert verify(Sparse(size, changes), seq=101)[1] == [1, 7, 101, 200, 201]
    compared = [500] * 250
    compared[33] = 5
    assert verify(Sparse(size, changes), seq=501, compared=compared)[1] == [1, 7, 33, 101, 200, 201]


def test_the_last_chunk_is_always_read_if_it_is_a_short_one() -> None:
    assert verify(Sparse(5 * CHUNK_SIZE + 1, []))[1] == [0, 5]


def test_all_is_read_if_nobody_knows_what_changed() -> None:
    report, read, _ = verify(Sparse(5 * CHUNK_SIZE + 1))
    assert read == [0, 1, 2, 3, 4, 5] == list(report.compared)


def test_an_empty_image_has_nothing_to_read() -> None:
    assert verify(Sparse(0, []))[1] == []


def test_a_chunk_that_is_wrong_is_handed_over() -> None:
    size = 250 * CHUNK_SIZE
    _, read, found = verify(Sparse(size, []), Sparse(size, wrong={100}))
    assert read == [0, 100, 200]
    assert [mismatch.index for mismatch in found] == [100]


def test_the_number_of_turns_is_its_only_option() -> None:
    with pytest.raises(ConfigError, match="percent"):
        changed.backy_verifier(config={"type": "changed", "percent": 5})
    with pytest.raises(ConfigError, match=r"config\.verifier\.turns"):
        changed.backy_verifier(config={"type": "changed", "turns": 0})
    coverage, image = Coverage(3, [2] * 20), Sparse(20 * CHUNK_SIZE, [])
    report = changed.backy_verifier(config={"type": "changed", "turns": 5}).verify(
        image, image, pytest.fail, lambda _: None, coverage
    )
    assert list(report.compared) == [3, 8, 13, 18]
