"""Reads raw images, and writes them: of each chunk, the pages that differ from those of the parent."""

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from backy.api import CHUNK_SIZE, PAGE_SIZE, Stored, checked, chunk_count
from backy.durable import READ_ONLY, naming, pread_all, punch_hole, pwrite_all, sync_folder
from backy.errors import MOST_FINDINGS, ChunkDamageError
from backy.pages import differing_pages, pages_with_data, runs, total

log = logging.getLogger(__name__)
_ZEROES = bytes(CHUNK_SIZE)


class RawReader:
    """Reads chunks by their index. Safe to use from several threads."""

    def __init__(self, name: str, descriptor: int | OSError) -> None:
        self._name = name
        self._file = descriptor
        """Descriptor of the image, or the error if it can not be opened."""

    def read(self, index: int, chunk_id: bytes) -> bytes:
        """Return a chunk, which the caller compares with the id.

        Raises:
            ChunkDamageError: the image is missing, or the chunk can not be read.
        """
        try:
            return pread_all(self.descriptor(), CHUNK_SIZE, index * CHUNK_SIZE)
        except OSError as error:
            raise ChunkDamageError(chunk_id, f"image {self._name}: {error.strerror}") from error

    def probe(self, index: int, chunk_id: bytes) -> int:
        """Return the length of a chunk without reading it.

        Raises:
            ChunkDamageError: the image is missing, or ends before the chunk.
        """
        try:
            size = os.fstat(self.descriptor()).st_size
        except OSError as error:
            raise ChunkDamageError(chunk_id, f"image {self._name}: {error.strerror}") from error
        if size <= index * CHUNK_SIZE:
            raise ChunkDamageError(chunk_id, f"image {self._name} ends before it, after {size} bytes")
        return min(size - index * CHUNK_SIZE, CHUNK_SIZE)

    def descriptor(self) -> int:
        """Return the descriptor of the image; raises OSError if it can not be opened."""
        # Raised here and not where the image is opened, so that each chunk is reported as damaged.
        if isinstance(self._file, OSError):
            raise self._file
        return self._file


class RawWriter:
    """Writes a new image, which began as a clone of its parent or as a hole. Safe to use from several threads."""

    def __init__(self, path: Path, temporary: Path, target: int, parent: RawReader | None) -> None:
        self._path = path
        self._temporary = temporary
        self._target = target
        self._parent = parent
        """The parent's image. Without it, there may be anything that a backup left which did not end."""
        self._written: set[int] = set()
        self._lock = threading.Lock()
        self._stored = 0
        self._damaged: list[ChunkDamageError] = []

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        """Write the pages of a chunk that differ from the previous chunk; return how many bytes differ."""
        old = b""
        if self._parent is None:
            # What can not be read is written in full, and the disk replaces its bad blocks.
            with suppress(OSError):
                old = pread_all(self._target, CHUNK_SIZE, index * CHUNK_SIZE)
        elif previous is None:
            old = _ZEROES[: len(data)]
        else:
            old = self._read_previous(self._parent, index, previous)
        with naming(self._path):
            written, changed = lay_over(self._target, index * CHUNK_SIZE, data, old)
        with self._lock:
            self._stored += written if self._parent is not None else total(pages_with_data(data), len(data))
            self._written.add(index)
        return changed

    def zero(self, index: int) -> None:
        """Make a chunk a hole."""
        # A whole chunk even if the last one is shorter: punching a hole does not change the length of the file.
        with naming(self._path):
            punch_hole(self._target, index * CHUNK_SIZE, CHUNK_SIZE)

    def commit(self) -> Stored:
        """Sync the image, then rename it to its final name.

        Raises:
            OSError: data could not be written.
        """
        with naming(self._path):
            if self._parent is None:
                self._clear()
            os.fsync(self._target)
        self._temporary.rename(self._path)
        # last: a backup that fails before goes on with the file, which has to be writable then
        os.fchmod(self._target, READ_ONLY)
        sync_folder(self._path.parent)
        return Stored(self._stored, damaged=tuple(self._damaged))

    def _clear(self) -> None:
        """Make a hole of every chunk that was not written: it is zeroes now, whatever was left of it."""
        end = 0
        for index in [*sorted(self._written), chunk_count(os.fstat(self._target).st_size)]:
            if index > end:
                punch_hole(self._target, end * CHUNK_SIZE, (index - end) * CHUNK_SIZE)
            end = index + 1

    def _read_previous(self, parent: RawReader, index: int, previous: bytes) -> bytes:
        """Return the parent's chunk at this index; return nothing if it is damaged."""
        # Compared with its id: unchanged pages stay in the clone, so their damage would become the new revision's.
        try:
            return checked(previous, parent.read(index, previous))
        except ChunkDamageError as error:
            log.warning("%s; what changed in it is stored in full", error)
            with self._lock:
                self._damaged.append(error if len(self._damaged) < MOST_FINDINGS else error.without_evidence())
        # All pages differ from nothing, so that the whole chunk is written.
        return b""


def lay_over(descriptor: int, offset: int, data: bytes, old: bytes) -> tuple[int, int]:
    """Replace `old` by `data` at `offset` of an image; pages of zeroes become holes.

    Return how many bytes were written, and how many bytes are in pages that differ.
    """
    pages, with_data = differing_pages(data, old), set(pages_with_data(data))
    filled = [page for page in pages if page in with_data]
    for start, length in runs(filled, len(data)):
        pwrite_all(descriptor, data[start : start + length], offset + start)
    for start, length in runs([page for page in pages if page not in with_data], len(data)):
        # Up to the end of the page: a block that the end of the image leaves incomplete is freed, too.
        punch_hole(descriptor, offset + start, -(-length // PAGE_SIZE) * PAGE_SIZE)
    return total(filled, len(data)), total(pages, len(data))
