"""The storage `chunked`: what its entry point names."""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Literal

import msgspec

from backy.api import Config, Held, Job, Purged, Storage
from backy.config import typed
from backy.durable import sync_folder, write_file
from backy.errors import StorageError
from backy.hookspecs import hookimpl
from backy.storage.chunked import standalone
from backy.storage.chunked.codec import NO_COMPRESSION, Codec
from backy.storage.chunked.files import ChunkFiles
from backy.storage.chunked.purge import held, purge
from backy.storage.chunked.reader import ChunkReader
from backy.storage.chunked.writer import ChunkWriter, Durability

MARKER = b"backy 3 chunks\n"
"""Content of `chunks/store`."""


class ChunkedConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `storage` of a job."""

    type: str
    compression: Annotated[int, msgspec.Meta(ge=1, le=19)] | Literal["none"] = 1
    """zstd level, 1 to 19, or `none`."""
    durability: Durability = "filesystem"
    """What a backup waits for: `none`, one sync of the `filesystem`, or of each `file`."""


class ChunkedStorage:
    """Keeps images as chunks below `chunks/`."""

    raw = False
    shares_chunks = True

    def __init__(self, job: Job, config: ChunkedConfig) -> None:
        self._directory = job.directory / "chunks"
        level = NO_COMPRESSION if config.compression == "none" else config.compression
        self._codec = Codec(level)
        self._durability = config.durability

    def initialize(self) -> None:
        """Make the folder, name its format, and add what restores it without backy."""
        self._directory.mkdir(mode=0o750, exist_ok=True)
        if (self._directory / "store").exists():
            self._files()
        write_file(self._directory / "store", MARKER)
        standalone.install(self._directory.parent)
        sync_folder(self._directory.parent)

    @contextmanager
    def create(
        self,
        revision_id: str,
        parent: str | None,
        size: int,
        referenced: Container[bytes],
    ) -> Iterator[ChunkWriter]:
        """Begin to store a revision."""
        standalone.install(self._directory.parent)
        with self._writer(self._durability, referenced) as writer:
            yield writer

    @contextmanager
    def _writer(self, durability: Durability, referenced: Container[bytes]) -> Iterator[ChunkWriter]:
        files = self._files()
        self._clear_temporary(files)
        files.temporary.mkdir(mode=0o700)
        writer = ChunkWriter(files, self._codec, durability, referenced)
        try:
            yield writer
        finally:
            writer.close()
            self._clear_temporary(files)

    @contextmanager
    def open(self, revision_id: str) -> Iterator[ChunkReader]:
        """Read chunks."""
        yield ChunkReader(self._files(), self._codec)

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        """Store a chunk in full, whatever is there: a full one is read in preference to a delta.

        Revisions that were durable refer to it, so it is made durable itself, whatever backups wait for.
        """
        with self._writer("file", ()) as writer:
            writer.write(index, chunk_id, data, None)
            writer.commit()

    def remove(self, revision_id: str) -> None:
        """Nothing here belongs to one revision alone."""

    def held(self, live: Container[bytes]) -> Held:
        """Count the bases that no revision refers to."""
        return held(self._files(), live)

    def purge(self, live: Container[bytes]) -> Purged:
        """Remove what is not live, and what crashes left behind."""
        files = self._files()
        self._clear_temporary(files)
        return purge(files, live)

    def dispose(self) -> None:
        """Remove all chunks, their folder, and what restores them without backy. `README` is for the next storage."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._directory)
        (self._directory.parent / "restore.py").unlink(missing_ok=True)
        sync_folder(self._directory.parent)

    def _files(self) -> ChunkFiles:
        try:
            marker = (self._directory / "store").read_bytes()
        except FileNotFoundError:
            raise StorageError(f"{self._directory / 'store'} is missing: no chunk store of backy 3") from None
        if marker != MARKER:
            raise StorageError(f"{self._directory / 'store'} says {marker!r}: no chunk store of backy 3")
        return ChunkFiles(self._directory)

    def _clear_temporary(self, files: ChunkFiles) -> None:
        """Drop what a crash left: only one backup or purge at a time gets here. Needs no space on the disk."""
        shutil.rmtree(files.temporary, ignore_errors=True)


@hookimpl
def backy_storage(config: Config, job: Job) -> Storage:
    """Make the chunk store of `job`."""
    return ChunkedStorage(job, typed(config, ChunkedConfig, "config.storage"))
