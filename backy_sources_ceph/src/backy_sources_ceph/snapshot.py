"""Reads a snapshot of an image for a backup.

It reads ahead: a cluster is fast only if several requests are under way at once.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager
from typing import Any

from backy.api import CHUNK_SIZE, Consistency, Extent, SourceError
from backy.extents import joined
from backy_sources_ceph.connection import CephConfig, bindings, failure, reason, reported

# `rbd export` has as many requests under way.
DEPTH = 10
"""Chunks that are requested before they are needed."""
Start = Callable[[int, int], "Future[bytes]"]
"""Begins to read at an offset, the first argument, so many bytes as the second says."""
# In windows, reading begins early and lists of changes stay short.
_WINDOW = 256 * 2**30
"""Bytes of the image whose changes are listed at a time."""


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


class RbdSnapshot:
    """The snapshot `name` of an image, open for reading.

    `since` is the earlier snapshot that changes are told from, or None. `check` is called for each read and raises if
    the backup must not go on.
    """

    consistency: Consistency = "crash"
    """What the image is like."""
    unfrozen = False
    """Whether the writers should have been at rest, and were not."""

    def __init__(self, handle: Any, name: str, since: str | None, check: Callable[[], None], what: str) -> None:
        rados, rbd = bindings()
        self._handle = handle
        self._name = name
        self._since = since
        self._check = check
        self._what = what
        # The data is read once. It should not drive data of virtual machines out of the OSD's cache.
        self._advice = rados.LIBRADOS_OP_FLAG_FADVISE_SEQUENTIAL | rados.LIBRADOS_OP_FLAG_FADVISE_NOCACHE
        with reported(what):
            self.size: int = handle.size()
            self._sizes: dict[str, int] = {snapshot["name"]: snapshot["size"] for snapshot in handle.list_snaps()}
            invalid = handle.flags() & (rbd.RBD_FLAG_OBJECT_MAP_INVALID | rbd.RBD_FLAG_FAST_DIFF_INVALID)
            self._fast = bool(handle.features() & rbd.RBD_FEATURE_FAST_DIFF) and not invalid
        self._ahead = ReadAhead(self._start, self.size)

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes. Data of a parent image counts as data."""
        return self._ahead.announce(filled(self._differences(None), 0, self.size))

    def changes(self) -> Iterator[Extent] | None:
        """Yield the ranges that differ from the earlier snapshot; None if there is no such snapshot."""
        if self._since is None or self._since not in self._sizes:
            return None
        # Ceph does not list what an image has grown by unless it was written.
        return self._ahead.announce(filled(self._differences(self._since), self._sizes[self._since], self.size))

    def _differences(self, since: str | None) -> Iterator[Extent]:
        """Yield ranges that were written or discarded after the snapshot `since`, or ever if it is None.

        These are whole objects where Ceph has a map of them.
        """
        for start in range(0, self.size, _WINDOW):
            found: list[Extent] = []
            with reported(f"{self._what}: comparing snapshots"):
                self._handle.diff_iterate(
                    start,
                    min(_WINDOW, self.size - start),
                    since,
                    lambda offset, length, data: found.append(Extent(offset, length, bool(data))),  # noqa: B023  # called at once
                    include_parent=since is None,
                    whole_object=self._fast,
                )
            # Ceph does not promise an order. Objects of an image with stripes do not follow the order of its bytes.
            yield from joined(sorted(found))

    def pread(self, offset: int, length: int) -> bytes:
        """Read `length` bytes at `offset`.

        Raises:
            SourceError: they can not be read, the snapshot was removed, or another backup took the image over.
        """
        if offset + length > self.size:
            raise SourceError(f"{self._what} has {self.size} bytes: there are no {length} at {offset}")
        self._check()
        data = self._ahead.pread(offset, length)
        # If somebody removed the snapshot meanwhile, Ceph has read zeroes. This question fails then.
        with reported(f"{self._what}: the snapshot {self._name} that is being read"):
            self._handle.is_protected_snap(self._name)
        return data

    def close(self) -> None:
        """Wait for all reads that were begun."""
        self._ahead.close()

    def _start(self, offset: int, length: int) -> Future[bytes]:
        future: Future[bytes] = Future()

        # librbd calls this in a thread of its own.
        def done(completion: Any, data: bytes | None) -> None:
            result = completion.get_return_value()
            if data is not None and result == length:
                future.set_result(data)
            else:
                found = reason(-result) if result < 0 else f"there are only {result} of {length} bytes"
                future.set_exception(failure(f"{self._what}: reading at {offset}", -result, found))

        with reported(self._what):
            self._handle.aio_read(offset, length, done, self._advice)
        return future


@contextmanager
def opened_snapshot(
    pool: Any, config: CephConfig, name: str, since: str | None, check: Callable[[], None]
) -> Iterator[RbdSnapshot]:
    """Open the snapshot `name` of the image of `config` for reading; raise SourceError if it does not exist."""
    _, rbd = bindings()
    what = f"source {config.specification}"
    # Not opened as read-only: librbd does not tell a read-only handle that its snapshot was removed.
    with reported(f"{what}: the snapshot {name}"):
        handle = rbd.Image(pool, config.image, snapshot=name)
    with closing(handle), closing(RbdSnapshot(handle, name, since, check, what)) as snapshot:
        yield snapshot


def filled(extents: Iterable[Extent], start: int, stop: int) -> Iterator[Extent]:
    """Yield ascending extents, with a hole for each gap between `start` and `stop`."""
    # Ceph lists what was written or discarded and leaves out the rest.
    position = start
    for extent in extents:
        if extent.offset > position:
            yield Extent(position, extent.offset - position, data=False)
        position = max(position, extent.end)
        yield extent
    if position < stop:
        yield Extent(position, stop - position, data=False)
