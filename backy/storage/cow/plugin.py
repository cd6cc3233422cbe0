"""The storage `cow`: what its entry point names."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from backy.api import CHUNK_SIZE, ID_PATTERN, Config, Held, Job, Purged, Storage
from backy.config import BareConfig, typed
from backy.durable import READ_ONLY, TEMPORARY_SUFFIX, naming, sync_folder, write_if_different
from backy.errors import StorageError
from backy.hookspecs import hookimpl
from backy.reflink import cannot_clone, clone, is_unsupported, require_clones
from backy.storage.cow.reader import RawReader
from backy.storage.cow.writer import RawWriter, lay_over

README = Path(__file__).with_name("README")


class CowStorage:
    """Keeps each image as the raw file `<id>`, a clone of its parent in which what has changed is written."""

    raw = True
    shares_chunks = False

    def __init__(self, job: Job) -> None:
        self._directory = job.directory

    def initialize(self) -> None:
        """Make sure that files can share blocks here, and explain the directory to those who have no backy."""
        require_clones(self._directory)
        self._install()

    def _install(self) -> None:
        write_if_different(self._directory / README.name, README.read_bytes(), 0o444)

    @contextmanager
    def create(
        self,
        revision_id: str,
        parent: str | None,
        size: int,
        referenced: Container[bytes],
    ) -> Iterator[RawWriter]:
        """Begin an image under a temporary name; it gets its own once it is on the disk."""
        self._install()
        path, temporary = self._path(revision_id), self._temporary(revision_id)
        temporary.unlink(missing_ok=True)
        with ExitStack() as files:
            origin = None if parent is None else _opened(files, self._path(parent), os.O_RDONLY)
            try:
                target = _opened(files, temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
                self._begin(origin, target, size)
                yield RawWriter(path, temporary, target, origin)
            except BaseException:
                for name in (temporary, path):
                    name.unlink(missing_ok=True)
                raise

    def _begin(self, origin: int | None, target: int, size: int) -> None:
        """Let the empty file `target` share all blocks of its parent and have its own size."""
        if origin is None:
            require_clones(self._directory)
        else:
            try:
                clone(origin, target)
            except OSError as error:
                if not is_unsupported(error):
                    raise
                raise cannot_clone(self._directory) from error
        os.ftruncate(target, size)

    @contextmanager
    def open(self, revision_id: str) -> Iterator[RawReader]:
        """Open an image; one that can not be opened fails chunk by chunk."""
        with ExitStack() as files:
            path = self._path(revision_id)
            try:
                descriptor: int | OSError = _opened(files, path, os.O_RDONLY)
            except OSError as error:
                descriptor = error
            yield RawReader(path.name, descriptor)

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        """Write the pages that are not what they should be into an image; other revisions share them no more."""
        path = self._path(revision_id)
        try:
            path.chmod(0o600)
        except FileNotFoundError:
            raise StorageError(f"{path} is missing: there is nothing left to repair in it") from None
        try:
            with ExitStack() as files, naming(path):
                descriptor = _opened(files, path, os.O_RDWR)
                stored = b""
                with suppress(OSError):
                    stored = os.pread(descriptor, len(data), index * CHUNK_SIZE)
                lay_over(descriptor, index * CHUNK_SIZE, data, stored)
                if len(data) < CHUNK_SIZE:
                    os.ftruncate(descriptor, index * CHUNK_SIZE + len(data))
                os.fsync(descriptor)
        finally:
            path.chmod(READ_ONLY)

    def remove(self, revision_id: str) -> None:
        """Remove an image; blocks that other revisions share stay theirs."""
        with suppress(FileNotFoundError):
            self._path(revision_id).unlink()
            sync_folder(self._directory)

    def held(self, live: Container[bytes]) -> Held:
        """Nothing is held for its own sake."""
        return Held()

    def purge(self, live: Container[bytes]) -> Purged:
        """Remove what a crash left; the space of images is free as soon as they are removed."""
        left = [
            path
            for path in self._directory.glob(f".*{TEMPORARY_SUFFIX}")
            if ID_PATTERN.fullmatch(path.name.removeprefix(".").removesuffix(TEMPORARY_SUFFIX))
        ]
        size = sum(path.stat().st_size for path in left)
        for path in left:
            path.unlink()
        return Purged(len(left), size)

    def _path(self, revision_id: str) -> Path:
        return self._directory / revision_id

    def _temporary(self, revision_id: str) -> Path:
        return self._directory / f".{revision_id}{TEMPORARY_SUFFIX}"


def _opened(files: ExitStack, path: Path, flags: int) -> int:
    """Open a file that is closed with `files`."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    files.callback(os.close, descriptor)
    return descriptor


@hookimpl
def backy_storage(config: Config, job: Job) -> Storage:
    """Make the storage; it has no options."""
    typed(config, BareConfig, "config.storage")
    return CowStorage(job)
