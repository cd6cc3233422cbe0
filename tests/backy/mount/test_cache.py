from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from backy.api import CHUNK_SIZE
from backy.mount.open_images import AHEAD, ChunkCache

ROOM = AHEAD + 3
"""Number of chunks that are kept."""


@pytest.fixture
def cache() -> Iterator[ChunkCache]:
    made = ChunkCache(ROOM * CHUNK_SIZE)
    yield made
    made.stop()


class Reader:
    """Reads chunks and counts how often."""

    def __init__(self, cache: ChunkCache) -> None:
        self.cache = cache
        self.reads: list[int] = []

    def __call__(self, number: int) -> bytes:
        return self.cache.get(bytes([number]), lambda: self.read(number)).result()

    def read(self, number: int) -> bytes:
        self.reads.append(number)
        return bytes([number])


def kept(cache: ChunkCache) -> list[int]:
    """Return which chunks are kept."""
    return [chunk_id[0] for chunk_id in cache._chunks]


def test_a_chunk_is_read_once_while_it_is_kept(cache: ChunkCache) -> None:
    reader = Reader(cache)

    assert [reader(1), reader(2), reader(1)] == [b"\1", b"\2", b"\1"]
    assert reader.reads == [1, 2]


def test_what_was_not_used_for_longest_is_dropped(cache: ChunkCache) -> None:
    reader = Reader(cache)
    for number in [*range(ROOM), 0, ROOM]:
        reader(number)

    assert kept(cache) == [*range(2, ROOM), 0, ROOM]


def test_what_is_read_ahead_is_kept_without_room(cache: ChunkCache) -> None:
    small = ChunkCache(0)
    reader = Reader(small)
    for number in range(ROOM):
        assert reader(number) == bytes([number])

    assert kept(small) == [*range(2, ROOM)]


def test_who_asks_meanwhile_waits_for_the_same_read(cache: ChunkCache) -> None:
    started, finish = threading.Event(), threading.Event()
    reads = []

    def read() -> bytes:
        reads.append(1)
        started.set()
        assert finish.wait(10)
        return b"data"

    first = cache.get(b"x", read)
    assert started.wait(10)
    second = cache.get(b"x", read)
    finish.set()

    assert (first.result(), second.result(), len(reads)) == (b"data", b"data", 1)


def test_a_failure_is_not_kept(cache: ChunkCache) -> None:
    def fail() -> bytes:
        raise OSError(5, "no")

    with pytest.raises(OSError, match="no"):
        cache.get(b"x", fail).result()
    assert cache.get(b"x", lambda: b"sound").result() == b"sound"
    assert cache.get(b"x", fail).result() == b"sound"


def test_who_waits_for_a_read_that_fails_gets_the_failure(cache: ChunkCache) -> None:
    started, finish = threading.Event(), threading.Event()

    def fail() -> bytes:
        started.set()
        assert finish.wait(10)
        raise OSError(5, "no")

    waiting = cache.get(b"x", fail)
    assert started.wait(10)
    also = cache.get(b"x", lambda: b"sound")
    finish.set()

    for future in (waiting, also):
        with pytest.raises(OSError, match="no"):
            future.result()
    assert cache.get(b"x", lambda: b"sound").result() == b"sound"


def test_many_readers_get_what_they_ask_for_and_memory_stays_bounded(cache: ChunkCache, rounds) -> None:
    reader = Reader(cache)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(rounds(200, 5000)):
            number = chance.randrange(3 * ROOM)
            assert reader(number) == bytes([number])

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(20)))

    assert len(kept(cache)) == ROOM


def test_threads_begin_with_the_first_read_as_none_survives_a_fork(cache: ChunkCache) -> None:
    before = threading.active_count()
    pool = ChunkCache(1)
    assert threading.active_count() == before
    pool.get(b"x", lambda: b"data").result()
    assert threading.active_count() == before + 1
    pool.stop()
