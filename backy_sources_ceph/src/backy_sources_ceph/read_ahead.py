"""Reads ahead: a cluster is fast only if several requests are under way at once."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait

from backy.api import CHUNK_SIZE, Extent

# `rbd export` has as many requests under way.
DEPTH = 10
"""Chunks that are requested before they are needed."""

Start = Callable[[int, int], "Future[bytes]"]
"""Begins to read at an offset, the first argument, so many bytes as the second says."""


class ReadAhead:
    """Reads an image of `size` bytes by `start`, and requests announced chunks before they are needed.

    Besides the chunks that are being read, at most DEPTH chunks are held in memory. Several threads may read.
    """

    def __init__(self, start: Start, size: int) -> None:
        self._start = start
        self._size = size
        self._lock = threading.Lock()
        self._announced: deque[range] = deque()
        self._begun: dict[int, Future[bytes]] = {}
        self._running: set[Future[bytes]] = set()

    def announce(self, extents: Iterable[Extent]) -> Iterator[Extent]:
        """Yield the extents that will be read next, in order, and replace what was announced earlier."""
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
            # Extents are yielded with a delay, so that there is always something known to read ahead.
            held.append(extent)
            if len(held) > DEPTH:
                yield held.popleft()
        yield from held

    def pread(self, offset: int, length: int) -> bytes:
        """Read `length` bytes at `offset`; raise the errors of reading."""
        index = offset // CHUNK_SIZE
        with self._lock:
            while self._announced and (self._announced[0][0] <= index or len(self._begun) < DEPTH):
                self._begin_next()
            # Only whole chunks are read ahead; a verifier may ask for anything.
            future = self._begun.pop(index, None) if (offset, length) == self._range(index) else None
        return (future or self._begin(offset, length)).result()

    def close(self) -> None:
        """Wait for all reads that were begun."""
        with self._lock:
            self._announced.clear()
        wait(self._running.copy())

    def _begin_next(self) -> None:
        chunks = self._announced.popleft()
        if len(chunks) > 1:
            self._announced.appendleft(chunks[1:])
        self._begun[chunks[0]] = self._begin(*self._range(chunks[0]))

    def _begin(self, offset: int, length: int) -> Future[bytes]:
        future = self._start(offset, length)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def _range(self, index: int) -> tuple[int, int]:
        """Return offset and length of a chunk."""
        return index * CHUNK_SIZE, min(CHUNK_SIZE, self._size - index * CHUNK_SIZE)
