"""The storage `cow`, as its entry point names it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from backy.api import CHUNK_SIZE, ID_PATTERN, Config, Held, Job, Purged, Storage
from backy.config import BareConfig, typed
from backy.durable import READ_ONLY, TEMPORARY_SUFFIX, naming, sync_folder
from backy.errors import StorageError
from backy.hookspecs import hookimpl
from backy.marker import Marker
from backy.reflink import cannot_clone, clone, is_unsupported, require_clones
from backy.storage.cow.reader import RawReader
from backy.storage.cow.writer import RawWriter, lay_over


class CowStorage:
    """Keeps each image as the raw file `<id>`: a clone of its parent with the changed pages written to it."""

    raw = True
    shares_chunks = False
    restore_hint = "the file <id> is the raw image: copy it, or use restore.py, which also checks it"

    def __init__(self, job: Job) -> None:
        self._directory = job.directory
        self._store = job.store
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
        """Begin an image under a temporary name; `commit` renames it."""
        path = self._path(revision_id)
        temporary = path.with_name(f".{revision_id}{TEMPORARY_SUFFIX}")
        temporary.unlink(missing_ok=True)
        with ExitStack() as files:
            parent_file = None if parent is None else _opened(files, self._path(parent), os.O_RDONLY)
            try:
                target = _opened(files, temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
                self._begin(parent_file, target, size)
                yield RawWriter(path, temporary, target, parent_file)
            except BaseException:
                # Both names: the backup may also fail after the commit.
                for name in (temporary, path):
                    name.unlink(missing_ok=True)
                raise

    def _begin(self, parent: int | None, target: int, size: int) -> None:
        """Make the empty file `target` a clone of its parent, if there is one, of `size` bytes."""
        if parent is None:
            # Fails now, not at the second backup: the repository may be a copy on another file system.
            require_clones(self._directory)
        else:
            try:
                clone(parent, target)
            except OSError as error:
                if not is_unsupported(error):
                    raise
                raise cannot_clone(self._directory) from error
        os.ftruncate(target, size)

    @contextmanager
    def open(self, revision_id: str) -> Iterator[RawReader]:
        """Open an image for reading."""
        with ExitStack() as files:
            path = self._path(revision_id)
            try:
                descriptor: int | OSError = _opened(files, path, os.O_RDONLY)
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
        try:
            # Images are read-only, so that nobody writes to one by mistake.
            path.chmod(0o600)
        except FileNotFoundError:
            raise StorageError(f"{path} is missing: there is nothing left to repair in it") from None
        try:
            with ExitStack() as files, naming(path):
                descriptor = _opened(files, path, os.O_RDWR)
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
            path.chmod(READ_ONLY)

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

    def _path(self, revision_id: str) -> Path:
        return self._directory / revision_id


def _opened(files: ExitStack, path: Path, flags: int) -> int:
    """Open a file and close it with `files`. The descriptor is returned."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    files.callback(os.close, descriptor)
    return descriptor


@hookimpl
def backy_storage(config: Config, job: Job) -> Storage:
    """Make the storage, which has no options."""
    typed(config, BareConfig, "config.storage")
    return CowStorage(job)
