"""The store: a folder of chunk files with the marker `store`.

A purge marks and sweeps: it needs no clocks and no access times.
"""

import os
import shutil
from collections.abc import Container, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Annotated, Literal

import msgspec

from backy.api import Held, Job, Leftover, Purged
from backy.durable import sync_folder
from backy.extents import is_shared
from backy.marker import Marker
from backy_storages_chunked.codec import NO_COMPRESSION, Codec
from backy_storages_chunked.files import ChunkFile, ChunkFiles, ChunkReader
from backy_storages_chunked.pool import Share, beside
from backy_storages_chunked.writer import NAME, ChunkWriter, Durability, leftover, noted

FOLDERS = 256


class ChunkedConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `storage` of a job's configuration."""

    type: str
    compression: Annotated[int, msgspec.Meta(ge=1, le=19)] | Literal["none"] = 1
    """zstd level, 1 to 19, or `none`."""
    durability: Durability = "filesystem"
    """What a backup waits for: `none`, one sync of the `filesystem`, or a sync of each `file`."""
    share: Share = Share()
    """With whom full chunks are shared, if the base directory has a pool."""


class ChunkedStorage:
    """Keeps images as chunks in its folder."""

    raw = False
    shares_chunks = True
    restore_hint = "restore.py reads it, with the program 'zstd'"

    def __init__(self, job: Job, config: ChunkedConfig) -> None:
        self._directory = job.store
        self._marker = Marker(job.store / "store", "chunks")
        self._codec = Codec(NO_COMPRESSION if config.compression == "none" else config.compression)
        self._durability = config.durability
        self._pool = beside(job, config.share)

    @property
    def identity(self) -> str:
        """The identity in `store`; raises StorageError."""
        return self._marker.identity

    def initialize(self, identity: str) -> None:
        """Make the folder and name its format."""
        self._directory.mkdir(mode=0o750, exist_ok=True)
        # A store of another version is refused, not overwritten.
        self._marker.write(identity)
        sync_folder(self._directory.parent)

    @contextmanager
    def create(
        self, revision_id: str, parent: str | None, size: int, reliable: Container[bytes]
    ) -> Iterator[ChunkWriter]:
        """Begin to store a revision."""
        with self._writer(self._durability, reliable, size) as writer:
            # Not later, or a guest could ask again and again what others have there, by what it writes into holes.
            writer.hope = 0 if parent else 16
            yield writer

    @contextmanager
    def _writer(self, durability: Durability, reliable: Container[bytes], size: int | None) -> Iterator[ChunkWriter]:
        """Give a writer, and the folder for its unfinished files."""
        files = self._files()
        # Also those of a crash: the repository's locks let only one backup or purge get here at a time.
        shutil.rmtree(files.temporary, ignore_errors=True)
        files.temporary.mkdir(mode=0o700)
        with closing(ChunkWriter(files, self._codec, durability, reliable, size)) as writer:
            try:
                yield writer
            finally:
                shutil.rmtree(files.temporary, ignore_errors=True)

    @contextmanager
    def open(self, revision_id: str) -> Iterator[ChunkReader]:
        """Open the store for reading; `revision_id` is not needed."""
        yield ChunkReader(self._files(), self._codec)

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        """Store a chunk in full, durably, in place of the damaged one."""
        # Durable whatever backups wait for, because durable revisions refer to the chunk. In full, because a full chunk
        # is read before a delta with the same id.
        with self._writer("file", (), None) as writer:
            writer.write(index, chunk_id, data, None)
            writer.commit()

    def remove(self, revision_id: str) -> None:
        """Do nothing: no file here belongs to one revision alone."""

    def held(self, live: Container[bytes]) -> Held:
        """Count the files that are kept only because live deltas are made of them: no revision refers to them."""
        files = self._files()
        others = [file for file in _ingredients(files, live) if not _needed(file, files, live)]
        sizes = [files.size(file) for file in others if files.exists(file)]
        return Held(len(sizes), sum(sizes))

    def purge(self, live: Container[bytes]) -> Purged:
        """Remove the chunks that are neither live nor left for the next backup, and unfinished files."""
        files = self._files()
        shutil.rmtree(files.temporary, ignore_errors=True)
        kept = noted(self._directory)
        # The names tell what deltas are made of, so no file is read. A crash between removals leaves dead files only.
        ingredients = _ingredients(files, live, kept)
        count = size = 0
        for number in range(FOLDERS):
            for file in files.folder(number):
                if not _needed(file, files, live, kept) and file not in ingredients:
                    # what others share is not free without this one
                    size += 0 if is_shared(files.path(file)) else files.size(file)
                    os.unlink(files.path(file))
                    count += 1
        size += self._pool.sweep()
        return Purged(count, size)

    def join(self) -> int:
        """Let full chunks share with those of other repositories again, as after cp or rsync."""
        files = self._files()
        full = (file for number in range(FOLDERS) for file in files.folder(number) if file.base is None)
        return sum(self._pool.join(files.path(file)) for file in full)

    def leftover(self) -> Leftover | None:
        """Return what a backup stored that did not end."""
        return leftover(ChunkFiles(self._directory))

    def discard(self) -> None:
        """Remove the notes about it, so that a purge removes the chunks."""
        (self._directory / NAME).unlink(missing_ok=True)

    def dispose(self) -> None:
        """Remove all chunks and their folder."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._directory)
        sync_folder(self._directory.parent)

    def _files(self) -> ChunkFiles:
        """Return the chunk files.

        Raises:
            StorageError: there is no chunk store, or one of another version.
        """
        self._marker.identity  # noqa: B018  # raises
        return ChunkFiles(self._directory, self._pool)


def _ingredients(files: ChunkFiles, *live: Container[bytes]) -> set[ChunkFile]:
    """Return the files that live deltas are made of."""
    deltas = (file for number in range(FOLDERS) for file in files.folder(number) if file.base is not None)
    return {other for file in deltas if _needed(file, files, *live) for other in file.made_of}


def _needed(file: ChunkFile, files: ChunkFiles, *live: Container[bytes]) -> bool:
    """Return whether a chunk that any of the containers has is read from this file."""
    # Beside a full chunk, a delta with the same id is not read.
    return any(file.chunk_id in ids for ids in live) and not (file.base and files.exists(ChunkFile(file.chunk_id)))
