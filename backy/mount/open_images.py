"""Stored images that are open in a mount: reading any range of them, whether chunks are damaged or purged meanwhile.

All images share a cache of the chunks that were read last, so that small reads need not fetch a whole chunk each time.
"""

import errno
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from typing import NamedTuple
from weakref import WeakValueDictionary, finalize

from backy.api import CHUNK_SIZE
from backy.errors import BackyError
from backy.image.stored import ZERO, StoredImage
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.system.locking import PURGE_LOCK, shared
from backy.system.parallel import keep_freed_memory, processor_count

log = logging.getLogger(__name__)
_ZEROES = bytes(CHUNK_SIZE)
AHEAD = 2 * processor_count()
"""How many chunks are read ahead: those that are read at the same time, and as many for which no thread waits."""


class ChunkCache:
    """Reads chunks by a few threads and keeps the latest ones. Safe to use from several threads.

    It keeps as many as fit into `limit` bytes, and at least those that are read ahead.
    """

    def __init__(self, limit: int) -> None:
        self._most = max(limit // CHUNK_SIZE, 1 + AHEAD)
        # Keyed by id, which stands for one content wherever it is stored: revisions and repositories share entries.
        self._chunks: OrderedDict[bytes, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()
        # It starts its threads with the first reads: before, a program may go to the background, where none survives.
        self._pool = ThreadPoolExecutor(processor_count(), thread_name_prefix="backy")
        keep_freed_memory()

    def stop(self) -> None:
        """End the threads and drop the reads that they have not begun."""
        self._pool.shutdown(cancel_futures=True)

    def get(self, chunk_id: bytes, read: Callable[[], bytes]) -> Future[bytes]:
        """Return the future of chunk `chunk_id`; call `read` in a thread unless the chunk is kept or being read."""
        with self._lock:
            future = self._chunks.pop(chunk_id, None)
            if future is None:
                future = self._pool.submit(self._read, chunk_id, read)
            self._chunks[chunk_id] = future
            # Those that were not used for longest go.
            while len(self._chunks) > self._most:
                self._chunks.popitem(last=False)
        return future

    def _read(self, chunk_id: bytes, read: Callable[[], bytes]) -> bytes:
        """Call `read`; forget the chunk if that fails."""
        try:
            return read()
        except BaseException:
            # The next one to ask may know of a sound copy. A failure that is kept keeps its image open, too.
            with self._lock:
                self._chunks.pop(chunk_id, None)
            raise


class ImageFile(NamedTuple):
    """The raw image of a revision."""

    repository: Repository
    revision: Revision


class OpenImage(StoredImage):
    """A revision that is open for reading. It holds no lock, so that no purge waits for a mount.

    A chunk that fails its check is read a second time, while no purge runs and from the storage that keeps the revision
    by then. Only if that fails, too, the chunk is damaged. So a read during a purge gets the right bytes or an error.
    """

    def __init__(self, file: ImageFile, cache: ChunkCache) -> None:
        self.file = file
        self._cache = cache
        self._reported: set[bytes] = set()
        self._latest: deque[int] = deque(maxlen=8)
        resources = ExitStack()
        opened = resources.enter_context(file.repository.open_image(file.revision))
        super().__init__(opened.chunks, opened.reader)
        # the storage's files stay open as long as anybody has this, a thread that reads included
        finalize(self, resources.close)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, fewer at the end of the image. Raises as `chunk`.

        Reads ahead while it is read from front to back.
        """
        index = offset // CHUNK_SIZE
        # several programs may read from front to back, each elsewhere
        if index not in self._latest:
            # besides the one that is wanted now
            for ahead in islice(self.chunks.data(index), (1 + AHEAD) * (index - 1 in self._latest)):
                self.fetch(ahead)
            self._latest.append(index)
        return self.pread(offset, min(length, self.size - offset)) if offset < self.size else b""

    def fetch(self, index: int) -> Future[bytes]:
        """Begin to read chunk `index`, which has data, into the cache."""
        return self._cache.get(self.chunks[index], lambda: self._load(index))

    def chunk(self, index: int) -> bytes:
        """Return chunk `index`, which the cache has or gets.

        Raises:
            OSError: ESTALE if the revision was removed, EIO if the chunk is damaged.
        """
        if self.chunks[index] == ZERO:
            return _ZEROES[: self.chunks.length(index)]
        return self.fetch(index).result()

    def _load(self, index: int) -> bytes:
        try:
            return super().chunk(index)
        except (BackyError, OSError):
            pass  # the second look decides; leaving the block frees the 4 MiB of evidence that the error holds
        try:
            with (
                shared(self.file.repository.directory, PURGE_LOCK),
                self.file.repository.open_image(self._current() or self.file.revision, self.chunks) as image,
            ):
                return image.chunk(index)
        except (BackyError, OSError) as error:
            cause = str(error)
        raise self._failure(index, cause)

    def _current(self) -> Revision | None:
        """Return the record as it is now, because a conversion may have moved the revision; None if it was removed."""
        try:
            return self.file.repository.records.read(self.file.revision.id)
        except FileNotFoundError:
            return None
        except BackyError:
            return self.file.revision  # a damaged record is no reason to stop reading

    def _failure(self, index: int, cause: str) -> OSError:
        """Make the error for a chunk that can not be read; log each damaged chunk once."""
        name = f"{self.file.repository.job.name}: revision {self.file.revision.id}"
        if self._current() is None:
            return OSError(errno.ESTALE, f"{name} was removed")
        chunk_id = self.chunks[index]
        if chunk_id not in self._reported:
            self._reported.add(chunk_id)
            start = index * CHUNK_SIZE
            end = start + self.chunks.length(index)
            log.error("%s can not be read from byte %d to %d: %s", name, start, end, cause)
        return OSError(errno.EIO, cause)


class OpenImages:
    """The open images, each of them opened once for all who read it. Safe to use from several threads."""

    def __init__(self, cache: ChunkCache) -> None:
        self._cache = cache
        self._images: WeakValueDictionary[tuple[Repository, str], OpenImage] = WeakValueDictionary()
        self._lock = threading.Lock()

    def open(self, file: ImageFile) -> OpenImage:
        """Open a complete revision; it is closed when nobody has it any more.

        Raises:
            BackyError: its map is damaged, or its storage can not be opened.
        """
        key = file.repository, file.revision.id
        with self._lock:
            # opened under the lock, or two threads would open the image twice
            return self._images.get(key) or self._images.setdefault(key, OpenImage(file, self._cache))
