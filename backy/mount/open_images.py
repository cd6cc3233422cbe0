"""Stored images that are open in a mount: reading any range of them, whether chunks are damaged or purged meanwhile."""

import errno
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from backy.api import CHUNK_SIZE
from backy.errors import BackyError
from backy.image.chunkmap import ZERO
from backy.mount.cache import ChunkCache
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.system.locking import PURGE_LOCK, shared
from backy.system.parallel import processor_count

log = logging.getLogger(__name__)


class ImageFile(NamedTuple):
    """The raw image of a revision."""

    repository: Repository
    revision: Revision


class OpenImage:
    """A revision that is open for reading. It holds no lock, so that no purge waits for a mount.

    A chunk that fails its check is read a second time, while no purge runs and from the storage that keeps the revision
    by then. Only if that fails, too, the chunk is damaged. So a read during a purge gets the right bytes or an error.
    """

    def __init__(self, repository: Repository, revision: Revision, cache: ChunkCache) -> None:
        self._repository = repository
        self._revision = revision
        self._cache = cache
        self._reported: set[bytes] = set()
        # a `with` in two methods: the storage's files stay open until `close`
        self._resources = ExitStack()
        self._image = self._resources.enter_context(repository.open_image(revision))
        self.chunks = self._image.chunks

    def close(self) -> None:
        """Close the storage's files."""
        self._resources.close()

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, fewer at the end of the image.

        Raises:
            OSError: ESTALE if the revision was removed, EIO if a chunk is damaged.
        """
        end = min(offset + length, self.chunks.size)
        pieces = []
        while offset < end:
            index, start = divmod(offset, CHUNK_SIZE)
            pieces.append(self._piece(index, start, min(start + end - offset, CHUNK_SIZE)))
            offset += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def fetch(self, index: int) -> None:
        """Begin to read chunk `index` into the cache; do nothing behind the end of the image."""
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
            pass  # the second look decides; leaving the block frees the 4 MiB of evidence that the error holds
        try:
            with (
                shared(self._repository.directory, PURGE_LOCK),
                self._repository.open_image(self._current() or self._revision, self.chunks) as image,
            ):
                return image.chunk(index)
        except (BackyError, OSError) as error:
            cause = str(error)
        raise self._failure(index, cause)

    def _current(self) -> Revision | None:
        """Return the record as it is now, because a conversion may have moved the revision; None if it was removed."""
        try:
            return self._repository.records.read(self._revision.id)
        except FileNotFoundError:
            return None
        except BackyError:
            return self._revision  # a damaged record is no reason to stop reading

    def _failure(self, index: int, cause: str) -> OSError:
        """Make the error for a chunk that can not be read; log each damaged chunk once."""
        name = f"{self._repository.job.name}: revision {self._revision.id}"
        if self._current() is None:
            return OSError(errno.ESTALE, f"{name} was removed")
        chunk_id = self.chunks[index]
        if chunk_id not in self._reported:
            self._reported.add(chunk_id)
            start = index * CHUNK_SIZE
            end = start + self.chunks.length(index)
            log.error("%s can not be read from byte %d to %d: %s", name, start, end, cause)
        return OSError(errno.EIO, cause)


class Handle:
    """One open file. Reads ahead while it is read from front to back."""

    def __init__(self, file: ImageFile, image: OpenImage, close: Callable[[], None]) -> None:
        self.file = file
        self.image = image
        self.close = close
        self._latest = -2  # not -1, for which chunk 0 would be the next: many programs read that one alone

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`; raises the errors of `OpenImage.read`."""
        index = offset // CHUNK_SIZE
        # as many as are read at the same time, and the one that is wanted now
        if index == self._latest + 1:
            for ahead in range(index, index + 1 + processor_count()):
                self.image.fetch(ahead)
        self._latest = index
        return self.image.read(offset, length)


class OpenImages:
    """The open images, each of them opened once for all its handles. Safe to use from several threads."""

    def __init__(self, cache: ChunkCache) -> None:
        self._cache = cache
        self._images: dict[tuple[Repository, str], tuple[OpenImage, int]] = {}
        self._lock = threading.Lock()

    def open(self, file: ImageFile) -> Handle:
        """Open a complete revision. The caller closes what is returned.

        Raises:
            BackyError: its map is damaged, or its storage can not be opened.
        """
        key = file.repository, file.revision.id
        with self._lock:
            # opened under the lock, or two threads would open the image twice
            image, users = self._images.get(key) or (OpenImage(*file, self._cache), 0)
            self._images[key] = image, users + 1
        return Handle(file, image, partial(self._close, key))

    def _close(self, key: tuple[Repository, str]) -> None:
        with self._lock:
            image, users = self._images.pop(key)
            if users > 1:
                self._images[key] = image, users - 1
            else:
                image.close()
