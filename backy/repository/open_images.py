"""Stored images that are open in a mount: reads of any size and place, and what comes of damage and of purges."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from backy.api import CHUNK_SIZE
from backy.errors import BackyError, DamageError
from backy.image.cache import ChunkCache
from backy.image.chunkmap import ZERO
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.system.locking import PURGE_LOCK, shared
from backy.system.parallel import processor_count

log = logging.getLogger(__name__)


class OpenImage:
    """A revision while somebody has it open. Nothing is locked: a purge is never kept waiting by a mount.

    What a purge removes is no part of a revision that is there, so a read during one gets the right bytes or none: a
    chunk is compared with its id, and one that fails is read once more, from the storage that keeps the revision
    by then, while no purge goes on. Only then is it damaged.
    """

    def __init__(self, repository: Repository, revision: Revision, cache: ChunkCache) -> None:
        self._repository = repository
        self._revision = revision
        self._cache = cache
        self._reported: set[bytes] = set()
        self._resources = ExitStack()
        self._image = self._resources.enter_context(repository.open_image(revision))
        self.chunks = self._image.chunks

    def close(self) -> None:
        """Let go of the storage's files."""
        self._resources.close()

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, fewer at the end of the image.

        Raises:
            OSError: ESTALE, if the revision was removed; EIO, if a chunk is damaged.
        """
        end = min(offset + length, self.chunks.size)
        pieces = []
        while offset < end:
            index, start = divmod(offset, CHUNK_SIZE)
            pieces.append(self._piece(index, start, min(start + end - offset, CHUNK_SIZE)))
            offset += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def fetch(self, index: int) -> None:
        """Begin to read a chunk that is likely to be wanted next."""
        if index < len(self.chunks) and self.chunks[index] != ZERO:
            self._cache.get(self.chunks[index], lambda: self._load(index))

    def _piece(self, index: int, start: int, stop: int) -> bytes:
        chunk_id = self.chunks[index]
        if chunk_id == ZERO:
            return bytes(stop - start)
        return self._cache.get(chunk_id, lambda: self._load(index)).result()[start:stop]

    def _load(self, index: int) -> bytes:
        try:
            return self._image.chunk(index)
        except (BackyError, OSError):
            pass  # whether it is damaged is found out by looking again: this error is forgotten, and what it holds
        cause = ""
        try:
            with (
                shared(self._repository.directory, PURGE_LOCK),
                self._repository.open_image(self._current(), self.chunks) as image,
            ):
                return image.chunk(index)
        except (BackyError, OSError) as error:
            cause = str(error)
        raise self._failure(index, cause)

    def _current(self) -> Revision:
        """Return the record as it is now: the revision may have been converted while it is open."""
        try:
            return self._repository.records.read(self._revision.id)
        except (FileNotFoundError, DamageError):
            return self._revision

    def _failure(self, index: int, cause: str) -> OSError:
        """Tell damage from a revision that is no more; log each damaged chunk once."""
        name = f"{self._repository.job.name}: revision {self._revision.id}"
        if self._is_removed():
            return OSError(errno.ESTALE, f"{name} was removed")
        chunk_id = self.chunks[index]
        if chunk_id not in self._reported:
            self._reported.add(chunk_id)
            log.error("%s can not be read from byte %d to %d: %s", name, *self._range(index), cause)
        return OSError(errno.EIO, cause)

    def _is_removed(self) -> bool:
        try:
            self._repository.records.read(self._revision.id)
        except FileNotFoundError:
            return True
        except BackyError:
            pass  # a damaged record is no reason to read no further
        return False

    def _range(self, index: int) -> tuple[int, int]:
        start = index * CHUNK_SIZE
        return start, start + self.chunks.length(index)


class Handle:
    """One open file: notices when it is read from front to back, and has the next chunks read ahead then."""

    def __init__(self, image: OpenImage) -> None:
        self.image = image
        self._latest = -2  # the first chunk follows none: many who read it want no other

    def read(self, offset: int, length: int) -> bytes:
        """Read as `OpenImage.read` does."""
        index = offset // CHUNK_SIZE
        if index == self._latest + 1:
            for ahead in range(index, index + 1 + processor_count()):
                self.image.fetch(ahead)
        self._latest = index
        return self.image.read(offset, length)


class OpenImages:
    """The images that are open, each once however many have it open. Safe to use from several threads."""

    def __init__(self, cache: ChunkCache) -> None:
        self._cache = cache
        self._images: dict[tuple[Repository, str], tuple[OpenImage, int]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def open(self, repository: Repository, revision: Revision) -> Iterator[Handle]:
        """Open a complete revision.

        Raises:
            BackyError: its map is damaged, or its storage can not be opened.
        """
        key = repository, revision.id
        with self._lock:
            image, users = self._images.get(key) or (OpenImage(repository, revision, self._cache), 0)
            self._images[key] = image, users + 1
        try:
            yield Handle(image)
        finally:
            with self._lock:
                image, users = self._images.pop(key)
                if users > 1:
                    self._images[key] = image, users - 1
                else:
                    image.close()
