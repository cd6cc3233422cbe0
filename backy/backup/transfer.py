"""Move an image from a snapshot into a storage: read the chunks that may have changed, store those that have."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from backy.api import CHUNK_SIZE, Extent, ImageWriter, Progress, Snapshot, identify
from backy.errors import SourceError
from backy.image.chunkmap import ZERO, ChunkMap
from backy.image.spans import spans, whole
from backy.system.parallel import in_parallel, thread_count

_ZEROES = bytes(CHUNK_SIZE)


class Unhinted:
    """A snapshot that does not tell what differs from the parent, so that core and verifiers read all of it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @property
    def size(self) -> int:
        """Bytes from the first to the last."""
        return self._snapshot.size

    def extents(self) -> Iterable[Extent]:
        """Yield data and holes of the snapshot."""
        return self._snapshot.extents()

    def changes(self) -> None:
        """Return None: the changes are not known."""

    def pread(self, offset: int, length: int) -> bytes:
        """Read from the snapshot."""
        return self._snapshot.pread(offset, length)


@dataclass
class Transferred:
    """The result of a transfer."""

    chunks: ChunkMap
    hinted: bool = False
    """Whether the source's changes decided which chunks were read; the others are those of the parent."""
    bytes_read: int = 0
    bytes_written: int = 0
    """Bytes that differ from the parent."""


def transfer(
    snapshot: Snapshot, writer: ImageWriter, parent: ChunkMap | None, progress: Progress, threads: int | None = None
) -> Transferred:
    """Store `snapshot` through `writer`, whose image begins as a copy of `parent`.

    `threads` is how many the storage would like to work for it; None if it does not care.

    Raises:
        SourceError: the source can not be read, or gives fewer bytes than it has.
        StorageError: the storage can not take a chunk.
    """
    return _Transfer(snapshot, writer, parent, progress).run(threads)


class _Transfer:
    def __init__(self, snapshot: Snapshot, writer: ImageWriter, parent: ChunkMap | None, progress: Progress) -> None:
        self._snapshot = snapshot
        self._writer = writer
        self._parent = parent or ChunkMap(0)
        self._progress = progress
        # chunks are stored by several threads, and the counts are theirs in common
        self._lock = threading.Lock()
        # a source need not stand more threads because the storage would like to have them
        self._reading = threading.BoundedSemaphore(thread_count())
        self._done = Transferred(self._parent.resized(snapshot.size))

    def run(self, threads: int | None) -> Transferred:
        """Read and store every chunk that may have changed."""
        for _ in in_parallel(self._store, self._candidates(), threads):
            pass  # the work is done while the results, which say nothing, are fetched
        return self._done

    def _candidates(self) -> Iterator[int]:
        """Yield the indexes of the chunks to read; zero those that a hole covers."""
        size = self._snapshot.size
        changes = self._snapshot.changes() if len(self._parent) else None
        self._done.hinted = changes is not None
        odd = self._odd_chunk(size) if changes is not None else None
        for span in spans(whole(self._snapshot.extents(), size) if changes is None else changes, size):
            if odd is not None and odd < span.stop:
                # in its place in the order, and once: the span itself may cover it
                if odd < span.start:
                    yield odd
                odd = None
            if span.data:
                yield from range(span.start, span.stop)
            else:
                self._zero(span.start, span.stop)
        if odd is not None:
            yield odd

    def _odd_chunk(self, size: int) -> int | None:
        """Return the index of the chunk whose length differs from the parent's, if the size does."""
        # its content differs, too, even if the source does not tell so
        index, rest = divmod(min(size, self._parent.size), CHUNK_SIZE)
        return index if rest and size != self._parent.size else None

    def _zero(self, start: int, stop: int) -> None:
        for index in self._parent.data(start, stop):
            self._replace(index, ZERO, b"")
        self._progress(min(stop * CHUNK_SIZE, self._snapshot.size) - start * CHUNK_SIZE)

    def _store(self, index: int) -> None:
        offset = index * CHUNK_SIZE
        length = min(CHUNK_SIZE, self._snapshot.size - offset)
        with self._reading:
            data = self._snapshot.pread(offset, length)
        # a plugin may break its contract, and a short chunk would be stored as if it were the whole one
        if len(data) != length:
            raise SourceError(
                f"the source gave {len(data)} instead of {length} bytes at {offset}: did it shrink meanwhile?"
            )
        zero = data == (_ZEROES if length == CHUNK_SIZE else bytes(length))
        self._replace(index, ZERO if zero else identify(data), data)
        with self._lock:
            self._done.bytes_read += length
        self._progress(length)

    def _replace(self, index: int, chunk_id: bytes, data: bytes) -> None:
        """Set chunk `index` to `chunk_id`; store `data` if the parent has something else there."""
        previous = self._parent[index] if index < len(self._parent) else ZERO
        self._done.chunks[index] = chunk_id
        if chunk_id == previous:
            return
        if chunk_id == ZERO:
            self._writer.zero(index)
            changed = self._done.chunks.length(index)
        else:
            changed = self._writer.write(index, chunk_id, data, None if previous == ZERO else previous)
        with self._lock:
            self._done.bytes_written += changed
