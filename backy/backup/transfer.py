"""Moving an image from a snapshot into a storage: reads what may have changed, stores what has."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from backy.api import CHUNK_SIZE, Extent, ImageWriter, Progress, Snapshot, identify
from backy.errors import SourceError
from backy.image.chunkmap import ZERO, ChunkMap
from backy.image.spans import spans, whole
from backy.system.parallel import in_parallel

_ZEROES = bytes(CHUNK_SIZE)


class Unhinted:
    """A snapshot that does not tell what changed since the parent, so that core and verifiers read all of it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @property
    def size(self) -> int:
        """Bytes from the first to the last."""
        return self._snapshot.size

    def extents(self) -> Iterable[Extent]:
        """Yield data and holes as the snapshot does."""
        return self._snapshot.extents()

    def changes(self) -> None:
        """Tell nothing."""

    def pread(self, offset: int, length: int) -> bytes:
        """Read as the snapshot does."""
        return self._snapshot.pread(offset, length)


@dataclass
class Transferred:
    """What came of it."""

    chunks: ChunkMap
    hinted: bool = False
    """Whether chunks were taken from the parent because the source said that they did not change."""
    bytes_read: int = 0
    bytes_written: int = 0
    """Bytes that differ from the parent."""


def transfer(snapshot: Snapshot, writer: ImageWriter, parent: ChunkMap | None, progress: Progress) -> Transferred:
    """Store `snapshot` by way of `writer`, which began as a copy of `parent`.

    Raises:
        SourceError: the source can not be read, or gives fewer bytes than it has.
        StorageError: the storage can not take it.
    """
    return _Transfer(snapshot, writer, parent, progress).run()


class _Transfer:
    def __init__(self, snapshot: Snapshot, writer: ImageWriter, parent: ChunkMap | None, progress: Progress) -> None:
        self._snapshot = snapshot
        self._writer = writer
        self._parent = parent or ChunkMap(0)
        self._progress = progress
        self._lock = threading.Lock()
        self._done = Transferred(self._parent.resized(snapshot.size))

    def run(self) -> Transferred:
        """Deal with every chunk that may have changed."""
        for _ in in_parallel(self._store, self._candidates()):
            pass
        return self._done

    def _candidates(self) -> Iterator[int]:
        """Yield the chunks to read; those known to be zero now are dealt with on the way."""
        size = self._snapshot.size
        changes = self._snapshot.changes() if len(self._parent) else None
        self._done.hinted = changes is not None
        odd = self._odd_chunk(size) if changes is not None else None
        for span in spans(whole(self._snapshot.extents(), size) if changes is None else changes, size):
            if odd is not None and odd < span.start:
                yield odd
            if odd is not None and odd < span.stop:
                odd = None
            if span.data:
                yield from range(span.start, span.stop)
            else:
                self._zero(span.start, span.stop)
        if odd is not None:
            yield odd

    def _odd_chunk(self, size: int) -> int | None:
        """Return the chunk whose length differs from the parent's: so does its content, whatever the source says."""
        if size == self._parent.size or not size:
            return None
        index = min(size, self._parent.size) // CHUNK_SIZE
        return index if min(size, self._parent.size) % CHUNK_SIZE else None

    def _zero(self, start: int, stop: int) -> None:
        for index in self._parent.data(start, stop):
            self._replace(index, ZERO, b"")
        self._progress(min(stop * CHUNK_SIZE, self._snapshot.size) - start * CHUNK_SIZE)

    def _store(self, index: int) -> None:
        offset = index * CHUNK_SIZE
        length = min(CHUNK_SIZE, self._snapshot.size - offset)
        data = self._snapshot.pread(offset, length)
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
        """Let chunk `index` be `chunk_id`, storing `data` if the parent has something else there."""
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
