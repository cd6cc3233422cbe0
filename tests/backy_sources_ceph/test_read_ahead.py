from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE, Extent, SourceError
from backy_sources_ceph.snapshot import DEPTH, ReadAhead

SIZE = 40 * CHUNK_SIZE + 1000
WHOLE = [Extent(0, SIZE, data=True)]


class Cluster:
    """Answers reads when it is told to, with the offset instead of the content."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.asked: list[int] = []
        self.waiting: list[tuple[Future[bytes], int, int]] = []

    def start(self, offset: int, length: int) -> Future[bytes]:
        future: Future[bytes] = Future()
        self.asked.append(offset)
        self.waiting.append((future, offset, length))
        if self.at_once:
            self.answer()
        return future

    def answer(self) -> None:
        for future, offset, length in self.waiting:
            future.set_result(b"%d+%d" % (offset, length))
        self.waiting.clear()


def length(index: int) -> int:
    return min(CHUNK_SIZE, SIZE - index * CHUNK_SIZE)


def read(ahead: ReadAhead, index: int) -> bytes:
    return ahead.pread(index * CHUNK_SIZE, length(index))


def test_announced_chunks_are_asked_for_before_they_are_read_and_once() -> None:
    cluster = Cluster()
    ahead = ReadAhead(cluster.start, SIZE)
    assert list(ahead.announce(WHOLE)) == WHOLE

    for index in range(41):
        assert read(ahead, index) == b"%d+%d" % (index * CHUNK_SIZE, length(index))
        assert len(cluster.asked) == min(index + 1 + DEPTH - 1, 41)
    assert cluster.asked == [index * CHUNK_SIZE for index in range(41)]


def test_what_is_scattered_is_known_early_enough() -> None:
    cluster = Cluster()
    ahead = ReadAhead(cluster.start, SIZE)
    extents = [Extent(index * CHUNK_SIZE + 10, 5, data=True) for index in range(0, 41, 2)]
    given_out = ahead.announce(extents)

    assert next(given_out) == extents[0]
    read(ahead, 0)
    assert cluster.asked == [index * 2 * CHUNK_SIZE for index in range(DEPTH)]
    assert list(given_out) == extents[1:]


def test_holes_are_not_asked_for_and_shared_chunks_are_once() -> None:
    cluster = Cluster()
    ahead = ReadAhead(cluster.start, SIZE)
    list(ahead.announce([Extent(0, 10, data=True), Extent(10, 10, data=True), Extent(20, 8 * CHUNK_SIZE, data=False)]))
    read(ahead, 0)

    assert cluster.asked == [0]


def test_what_was_not_announced_is_read_nevertheless() -> None:
    cluster = Cluster()
    ahead = ReadAhead(cluster.start, SIZE)
    list(ahead.announce([Extent(0, CHUNK_SIZE, data=True)]))

    assert ahead.pread(CHUNK_SIZE + 1, 10) == b"%d+10" % (CHUNK_SIZE + 1)
    assert ahead.pread(5, 10) == b"5+10"
    assert read(ahead, 0) == b"0+%d" % CHUNK_SIZE


def test_a_new_announcement_replaces_the_one_before() -> None:
    cluster = Cluster()
    ahead = ReadAhead(cluster.start, SIZE)
    list(ahead.announce(WHOLE))
    read(ahead, 0)
    cluster.asked.clear()
    list(ahead.announce([Extent(30 * CHUNK_SIZE, CHUNK_SIZE, data=True)]))
    read(ahead, 3)

    assert cluster.asked == [30 * CHUNK_SIZE, 3 * CHUNK_SIZE]


def test_an_error_reaches_whoever_reads_the_chunk() -> None:
    def start(offset: int, _length: int) -> Future[bytes]:
        future: Future[bytes] = Future()
        if offset == 2 * CHUNK_SIZE:
            future.set_exception(SourceError("the cluster does not answer"))
        else:
            future.set_result(b"")
        return future

    ahead = ReadAhead(start, SIZE)
    list(ahead.announce(WHOLE))
    read(ahead, 0)
    read(ahead, 1)
    with pytest.raises(SourceError, match="does not answer"):
        read(ahead, 2)
    ahead.close()


def test_closing_waits_for_what_was_begun() -> None:
    cluster = Cluster(at_once=False)
    ahead = ReadAhead(cluster.start, SIZE)
    list(ahead.announce(WHOLE))
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(read, ahead, 0)
        while len(cluster.waiting) < DEPTH:
            assert not reading.done()
        closing = pool.submit(ahead.close)
        assert not closing.done()
        cluster.answer()
        closing.result(60)
        assert reading.result(60)


@given(st.lists(st.integers(0, 40), unique=True), st.permutations(range(41)))
def test_any_order_of_reads_gives_each_chunk_and_holds_a_bounded_number(chunks: list[int], order: list[int]) -> None:
    cluster = Cluster()
    ahead = ReadAhead(cluster.start, SIZE)
    list(ahead.announce([Extent(index * CHUNK_SIZE, length(index), data=True) for index in sorted(chunks)]))

    for index in order:
        assert read(ahead, index) == b"%d+%d" % (index * CHUNK_SIZE, length(index))
    assert sorted(cluster.asked) == [index * CHUNK_SIZE for index in range(41)]


def test_threads_may_read_at_once() -> None:
    cluster = Cluster()
    ahead = ReadAhead(cluster.start, SIZE)
    list(ahead.announce(WHOLE))
    barrier = threading.Barrier(8)

    def some(first: int) -> list[bytes]:
        barrier.wait()
        return [read(ahead, index) for index in range(first, 41, 8)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(some, range(8)))
    assert found == [
        [b"%d+%d" % (index * CHUNK_SIZE, length(index)) for index in range(first, 41, 8)] for first in range(8)
    ]
    assert sorted(cluster.asked) == [index * CHUNK_SIZE for index in range(41)]
