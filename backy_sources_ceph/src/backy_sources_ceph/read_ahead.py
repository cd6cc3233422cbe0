"""Reading ahead: a cluster gives its best only to those who ask for several things at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait

from backy.api import CHUNK_SIZE, Extent

DEPTH = 10
"""How many chunks are asked for before they are needed; `rbd export` has as many in flight."""

Start = Callable[[int, int], "Future[bytes]"]
"""Begins to read `length` bytes at `offset`."""


class ReadAhead:
    """Reads an image by way of `start`. Chunks that were announced are asked for some time before they are read.

    Memory is bounded: at most DEPTH chunks that nobody has asked for yet are held, besides those being read.
    """

    def __init__(self, start: Start, size: int) -> None:
        self._start = start
        self._size = size
        self._lock = threading.Lock()
        self._announced: deque[range] = deque()
        self._begun: dict[int, Future[bytes]] = {}
        self._running: set[Future[bytes]] = set()

    def announce(self, extents: Iterable[Extent]) -> Iterator[Extent]:
        """Hand on the extents that will be read next, in order; whatever was announced before is forgotten.

        They are handed on a little later than they come, so that it is known what to read ahead.
        """
        with self._lock:
            self._announced.clear()
            self._begun.clear()
        held: deque[Extent] = deque()
        done = 0
        for extent in extents:
            if extent.data:
                chunks = range(max(done, extent.offset // CHUNK_SIZE), -(-extent.end // CHUNK_SIZE))
                done = chunks.stop
                if chunks:
                    with self._lock:
                        self._announced.append(chunks)
            held.append(extent)
            if len(held) > DEPTH:
                yield held.popleft()
        yield from held

    def pread(self, offset: int, length: int) -> bytes:
        """Read `length` bytes at `offset`; raises whatever reading raises."""
        index = offset // CHUNK_SIZE
        with self._lock:
            while self._announced and (self._announced[0][0] <= index or len(self._begun) < DEPTH):
                self._begin_next()
            future = self._begun.pop(index, None) if (offset, length) == self._place(index) else None
        return (future or self._begin(offset, length)).result()

    def close(self) -> None:
        """Wait until nothing is being read any more."""
        with self._lock:
            self._announced.clear()
        wait(self._running.copy())

    def _begin_next(self) -> None:
        chunks = self._announced.popleft()
        if len(chunks) > 1:
            self._announced.appendleft(chunks[1:])
        self._begun[chunks[0]] = self._begin(*self._place(chunks[0]))

    def _begin(self, offset: int, length: int) -> Future[bytes]:
        future = self._start(offset, length)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def _place(self, index: int) -> tuple[int, int]:
        """Return offset and length of a chunk."""
        return index * CHUNK_SIZE, min(CHUNK_SIZE, self._size - index * CHUNK_SIZE)
