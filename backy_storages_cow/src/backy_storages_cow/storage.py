"""The storage of raw images: each is a file in the repository."""

import os
import shutil
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from backy.api import CHUNK_SIZE, ID_PATTERN, Held, Job, Leftover, Purged
from backy.durable import READ_ONLY, TEMPORARY_SUFFIX, closed_at_end, naming, open_regular, sync_folder
from backy.errors import StorageError
from backy.marker import Marker
from backy_sources_file.reflink import clone, clones_needed, require_clones
from backy_storages_cow.images import RawReader, RawWriter, lay_over


class CowStorage:
    """Keeps each image as the raw file `<id>`: a clone of its parent with the changed pages written to it."""

    raw = True
    shares_chunks = False
    restore_hint = "the file <id> is the raw image: copy it, or use restore.py, which also checks it"

    def __init__(self, job: Job) -> None:
        self._directory = job.directory
        self._store = job.store
        self._unfinished = job.store / "unfinished"
        self._marker = Marker(job.store / "store", "images")

    @property
    def identity(self) -> str:
        """The identity in the marker, which is all that the folder has; raises StorageError."""
        return self._marker.identity

    def initialize(self, identity: str) -> None:
        """Check that files can share blocks here, and name the format."""
        require_clones(self._directory)
        self._store.mkdir(mode=0o750, exist_ok=True)
        self._marker.write(identity)
        sync_folder(self._directory)

    def dispose(self) -> None:
        """Remove the marker and its folder."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._store)
            sync_folder(self._directory)

    @contextmanager
    def create(
        self, revision_id: str, parent: str | None, size: int, reliable: Container[bytes]
    ) -> Iterator[RawWriter]:
        """Begin an image under a temporary name, or go on with one that did not end; `commit` renames it."""
        path, temporary = self._path(revision_id), self._unfinished
        # A clone of the parent is made in no time, so only an image that began with nothing is gone on with.
        if parent is not None:
            temporary = path.with_name(f".{revision_id}{TEMPORARY_SUFFIX}")
            temporary.unlink(missing_ok=True)
        with ExitStack() as files:
            base = None if parent is None else RawReader(parent, files.enter_context(_readable(self._path(parent))))
            try:
                target = files.enter_context(_writable(temporary, os.O_CREAT))
                # The cache may have what a failing disk never got, and nobody was told.
                os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
                if base is None:
                    # Fails now, not at the second backup: the repository may be a copy on another file system.
                    require_clones(self._directory)
                else:
                    with clones_needed(self._directory):
                        clone(base.descriptor(), target)
                os.ftruncate(target, size)
                yield RawWriter(path, temporary, target, base)
            except BaseException:
                # The backup may also fail after the commit.
                path.unlink(missing_ok=True)
                if parent is not None:
                    temporary.unlink(missing_ok=True)
                raise

    @contextmanager
    def open(self, revision_id: str) -> Iterator[RawReader]:
        """Open an image for reading."""
        with ExitStack() as files:
            path = self._path(revision_id)
            try:
                descriptor: int | OSError = files.enter_context(_readable(path))
            except OSError as error:
                # Raised for each chunk: a missing image is damage of its chunks, not an error of the command.
                descriptor = error
            yield RawReader(path.name, descriptor)

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        """Write the pages that differ from `data` into an image.

        Raises:
            StorageError: the image is missing.
            OSError: the pages can not be written.
        """
        path = self._path(revision_id)
        with ExitStack() as files, naming(path):
            try:
                readable = files.enter_context(_readable(path))
            except FileNotFoundError:
                raise StorageError(f"{path} is missing: there is nothing left to repair in it") from None
            # Images are read-only, so that nobody writes to one by mistake.
            os.fchmod(readable, 0o600)
            try:
                descriptor = files.enter_context(_writable(path))
                stored = b""
                # Without the stored bytes all pages are written, and the disk replaces its bad blocks.
                with suppress(OSError):
                    stored = os.pread(descriptor, len(data), index * CHUNK_SIZE)
                lay_over(descriptor, index * CHUNK_SIZE, data, stored)
                # A short chunk is the last one: the damage may be that the file has another length.
                if len(data) < CHUNK_SIZE:
                    os.ftruncate(descriptor, index * CHUNK_SIZE + len(data))
                os.fsync(descriptor)
            finally:
                os.fchmod(readable, READ_ONLY)

    def remove(self, revision_id: str) -> None:
        """Remove an image. Other revisions keep the blocks that they share with it."""
        with suppress(FileNotFoundError):
            self._path(revision_id).unlink()
            sync_folder(self._directory)

    def held(self, live: Container[bytes]) -> Held:
        """Return nothing: every file belongs to a revision."""
        return Held()

    def purge(self, live: Container[bytes]) -> Purged:
        """Remove unfinished images that crashes left."""
        # Other names are those of records and links: the core cleans these up itself.
        left = [path for path in self._directory.glob(f".*{TEMPORARY_SUFFIX}") if ID_PATTERN.fullmatch(path.stem[1:])]
        size = sum(path.stat().st_size for path in left)
        for path in left:
            path.unlink()
        return Purged(len(left), size)

    def leftover(self) -> Leftover | None:
        """Return what the image takes that did not end."""
        with suppress(FileNotFoundError):
            found = self._unfinished.stat()
            return Leftover(found.st_blocks * 512, datetime.fromtimestamp(found.st_mtime, UTC))
        return None

    def discard(self) -> None:
        """Remove it."""
        self._unfinished.unlink(missing_ok=True)

    def _path(self, revision_id: str) -> Path:
        return self._directory / revision_id


def _writable(path: Path, flags: int = 0) -> AbstractContextManager[int]:
    """Open a file for reading and writing while the context lasts."""
    return closed_at_end(os.open(path, os.O_RDWR | flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))


def _readable(path: Path) -> AbstractContextManager[int]:
    """Open a file for reading while the context lasts."""
    return closed_at_end(open_regular(path))
