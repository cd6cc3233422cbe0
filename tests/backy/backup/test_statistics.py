"""The figures of a backup: what a guest changed is the same whatever keeps it, and waiting for a source is no work."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE
from backy.backup.backup import Backup
from backy.testing.clock import Clock
from backy.testing.memory import MemoryImage, MemoryRepository


def pages(content: bytes) -> list[bytes]:
    return [content[start : start + PAGE_SIZE] for start in range(0, len(content), PAGE_SIZE)]


def changed(new: bytes, old: bytes) -> int:
    """Count the bytes of changed pages; a chunk that became zeroes is changed as a whole."""
    found = 0
    for start in range(0, len(new), CHUNK_SIZE):
        chunk = new[start : start + CHUNK_SIZE]
        before = old[start : start + len(chunk)].ljust(len(chunk), b"\0")
        if not any(chunk) and any(before):
            found += len(chunk)
        elif chunk != before:
            found += sum(len(page) for page, other in zip(pages(chunk), pages(before), strict=False) if page != other)
    return found


def days(chance: random.Random) -> Iterator[bytes]:
    """Yield the states of a disk: written to, copied within itself, reverted, discarded, grown and shrunk."""
    first = bytearray(6 * CHUNK_SIZE)
    first[: CHUNK_SIZE + PAGE_SIZE] = chance.randbytes(CHUNK_SIZE + PAGE_SIZE)
    yield bytes(first)
    second = bytearray(first)
    second[7 * PAGE_SIZE : 8 * PAGE_SIZE] = chance.randbytes(PAGE_SIZE)
    second[4 * CHUNK_SIZE + 3 : 4 * CHUNK_SIZE + 13] = b"ten bytes."
    second[3 * CHUNK_SIZE : 4 * CHUNK_SIZE] = first[:CHUNK_SIZE]  # the content of another chunk
    yield bytes(second)
    third = bytearray(second)
    third[:CHUNK_SIZE] = first[:CHUNK_SIZE]  # what is stored already
    third[CHUNK_SIZE : 2 * CHUNK_SIZE] = second[3 * CHUNK_SIZE : 4 * CHUNK_SIZE]
    third[4 * CHUNK_SIZE : 5 * CHUNK_SIZE] = bytes(CHUNK_SIZE)
    yield bytes(third)
    yield bytes(third[: 5 * CHUNK_SIZE - 1000])
    yield bytes(third[:CHUNK_SIZE]) + chance.randbytes(6 * CHUNK_SIZE + 1)


@pytest.mark.parametrize("storage", ["chunked", "cow"])
def test_changed_bytes_are_the_pages_that_a_guest_changed_in_each_storage(mount, clock, storage: str) -> None:
    repository = MemoryRepository.make(mount("xfs") / "vm", {"type": storage})
    expected, before = [], b""
    for disk in days(random.Random(1)):
        repository.memory.content = disk
        Backup(repository, ("daily",), clock=clock).run()
        expected.append(changed(disk, before))
        before = disk

    found = repository.records.history()
    assert [revision.statistics.bytes_written for revision in found] == expected
    assert found[0].statistics.bytes_written < 2 * CHUNK_SIZE  # of chunks that were zeroes, what is written


def test_the_wait_for_a_snapshot_is_no_part_of_the_duration(backy_repository: MemoryRepository, monkeypatch) -> None:
    clock = Clock()
    image = MemoryImage(bytes(100))

    @contextmanager
    def slow(*_: object) -> Iterator[MemoryImage]:
        clock.now += timedelta(minutes=5)
        yield image
        clock.now += timedelta(minutes=7)

    monkeypatch.setattr(backy_repository.memory, "snapshot", slow)
    revision = Backup(backy_repository, ("daily",), clock=lambda: clock.now).run()

    assert revision.statistics.duration == 0
