"""Writing an image: of each chunk, the pages that differ from the parent's."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from backy.api import CHUNK_SIZE, PAGE_SIZE, Stored
from backy.durable import READ_ONLY, naming, pwrite_all, sync_folder
from backy.errors import MOST_FINDINGS, ChunkDamageError
from backy.image.chunkmap import checked
from backy.image.pages import differing_pages, runs
from backy.reflink import punch_hole
from backy.storage.cow.reader import read_chunk

log = logging.getLogger(__name__)
_ZEROES = bytes(CHUNK_SIZE)


class RawWriter:
    """A new image, which began as a clone of its parent or as one large hole. Safe to use from several threads."""

    def __init__(self, path: Path, temporary: Path, target: int, origin: int | None) -> None:
        self._path = path
        self._temporary = temporary
        self._target = target
        self._origin = origin
        """Descriptor of the parent."""
        self._lock = threading.Lock()
        self._stored = 0
        self._damaged: list[ChunkDamageError] = []

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        """Write the pages of a chunk that the parent's chunk does not have; return how many bytes that are."""
        if self._origin is None or previous is None:
            old = _ZEROES[: len(data)]
        else:
            old = self._parent(self._origin, index, previous)
        with naming(self._path):
            written, changed = lay_over(self._target, index * CHUNK_SIZE, data, old)
        with self._lock:
            self._stored += written
        return changed

    def zero(self, index: int) -> None:
        """Let a chunk be a hole; the last one of an image may be shorter, and so may its hole reach beyond the end."""
        with naming(self._path):
            punch_hole(self._target, index * CHUNK_SIZE, CHUNK_SIZE)

    def commit(self) -> Stored:
        """Bring the image to the disk, then give it its name."""
        with naming(self._path):
            os.fchmod(self._target, READ_ONLY)
            os.fsync(self._target)
        self._temporary.rename(self._path)
        sync_folder(self._path.parent)
        return Stored(self._stored, damaged=tuple(self._damaged))

    def _parent(self, origin: int, index: int, previous: bytes) -> bytes:
        """Return the parent's chunk; nothing if it is damaged, so that all of the new one is written."""
        try:
            return checked(previous, read_chunk(origin, index))
        except OSError as error:
            self._note(ChunkDamageError(previous, f"the parent's image: {error.strerror}"))
        except ChunkDamageError as error:
            self._note(error)
        return b""

    def _note(self, damage: ChunkDamageError) -> None:
        log.warning("%s; what changed in it is stored in full", damage)
        with self._lock:
            self._damaged.append(damage if len(self._damaged) < MOST_FINDINGS else damage.without_evidence())


def lay_over(descriptor: int, offset: int, data: bytes, old: bytes) -> tuple[int, int]:
    """Let the bytes at `offset` of an image, which are `old` so far, be `data`; pages of zeroes become holes.

    Returns how many bytes were written, and how many of `data` differ from `old`.
    """
    pages = differing_pages(data, old)
    zeroes = [page for page in pages if _is_zero(data[page * PAGE_SIZE : (page + 1) * PAGE_SIZE])]
    written = 0
    for start, length in runs(sorted(set(pages).difference(zeroes)), len(data)):
        pwrite_all(descriptor, data[start : start + length], offset + start)
        written += length
    for start, length in runs(zeroes, len(data)):
        # up to the end of the page: a block that the image's end leaves incomplete is given back, too
        punch_hole(descriptor, offset + start, -(-length // PAGE_SIZE) * PAGE_SIZE)
    return written, sum(length for _, length in runs(pages, len(data)))


def _is_zero(page: bytes) -> bool:
    return page == _ZEROES[: len(page)]
