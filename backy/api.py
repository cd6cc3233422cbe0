"""The types that a plugin implements or receives.

The factory hooks of `backy.hookspecs` make sources, storages and verifiers. Each of them returns an object that fits
one of the protocols below.

Offsets, lengths and sizes are bytes. A chunk is `CHUNK_SIZE` bytes of an image; the last chunk may be shorter. The
chunk with index `n` starts at `n * CHUNK_SIZE`. Its id is the BLAKE3-256 of its content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

# The errors that concern plugins. They are defined below this module, so that the rooms on the ground can raise them.
from backy.errors import (
    BackyError,
    ChunkDamageError,
    ConfigError,
    SourceBusyError,
    SourceError,
    StorageError,
    TargetError,
)

__all__ = [
    "CHUNK_SIZE",
    "ID_PATTERN",
    "PAGE_SIZE",
    "AssessedSnapshot",
    "BackyError",
    "ChunkDamageError",
    "Config",
    "ConfigError",
    "ConsoleCommand",
    "DisposableStorage",
    "Extent",
    "Held",
    "Image",
    "ImageReader",
    "ImageWriter",
    "Import",
    "Job",
    "KeepingSource",
    "Mismatch",
    "MismatchHandler",
    "Progress",
    "Purged",
    "Report",
    "RestoreTarget",
    "Snapshot",
    "Source",
    "SourceBusyError",
    "SourceError",
    "Storage",
    "StorageError",
    "Stored",
    "TargetError",
    "Verifier",
    "chunk_count",
    "identify",
]

CHUNK_SIZE: Final = 4 * 2**20
"""Bytes of a chunk: the part of an image that is stored, named and checked at once."""

# Guests write whole blocks, and theirs have this size nearly everywhere.
PAGE_SIZE: Final = 4096
"""Bytes of a page: the part of a chunk that is compared at once."""

# Safe as the name of a file, of a snapshot and of an option's value. Nothing but this pattern looks into an id.
ID_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{7,63}")
"""Matches the id of a revision."""

Progress = Callable[[int], None]
"""Called with the number of bytes that were done since the last call. May be called from any thread."""

Config = Mapping[str, Any]
"""A plugin's section of a configuration as it was written, with its `type`. `backy.config.typed` checks it."""


def identify(data: bytes) -> bytes:
    """Return the id of a chunk with the content `data`: BLAKE3 with 32 bytes of output, without a key."""
    from blake3 import blake3  # Not at the top: commands that hash nothing, such as `status`, need not load it.

    return blake3(data).digest()


def chunk_count(size: int) -> int:
    """Return the number of chunks of an image of `size` bytes."""
    return -(-size // CHUNK_SIZE)


class Extent(NamedTuple):
    """A range of an image: data, or a hole, which reads as zeroes."""

    offset: int
    length: int
    data: bool
    """False for a hole."""

    @property
    def end(self) -> int:
        """The offset of the first byte after the extent."""
        return self.offset + self.length


@dataclass(frozen=True)
class Job:
    """The job that a plugin works for."""

    name: str
    id: str
    """The id of the repository, which never changes. A source uses it in the names of what it keeps elsewhere."""
    directory: Path
    """The repository. A storage keeps its files here. A source does not touch it."""


class Image(Protocol):
    """An image that can be read: a snapshot of a source or a stored revision."""

    @property
    def size(self) -> int:
        """Length of the image in bytes."""

    def extents(self) -> Iterable[Extent]:
        """Yield data and holes, ascending and without gaps, from 0 to `size`.

        An image that can not tell holes from data yields all of it as data.
        """

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; holes read as zeroes. Called from several threads.

        Raises:
            BackyError: the bytes can not be read, or the range reaches beyond `size`.
        """


class Snapshot(Image, Protocol):
    """A source that is frozen for one backup."""

    def changes(self) -> Iterable[Extent] | None:
        """Yield, ascending, all ranges that may differ from the revision `parent` of `Source.snapshot`.

        A hole is a range that reads as zeroes now. The range by which the image has grown is a change. Return None if
        the source can not tell; everything is read then. Every call gives the same answer.
        """


@runtime_checkable
class AssessedSnapshot(Snapshot, Protocol):
    """A snapshot that knows whether the programs that write to the source were brought to rest."""

    @property
    def consistent(self) -> bool:
        """False if the image is as after a power loss. The revision's record, `status` and `check` show this."""


class Source(Protocol):
    """A source of images."""

    @property
    def verifier(self) -> str:
        """Name of the verifier to use unless the job names one."""

    def snapshot(self, revision_id: str, parent: str | None) -> AbstractContextManager[Snapshot]:
        """Freeze the source for one backup, which makes revision `revision_id`.

        `parent` is the complete revision that the new one builds upon; None for a full backup. The context ends without
        an exception when the revision is complete, and with an exception when the revision is to be removed.

        Raises:
            SourceError: there is no such source, or it can not be frozen.
            SourceBusyError: another backup uses the source; the command ends as busy.
        """


@runtime_checkable
class KeepingSource(Source, Protocol):
    """A source that keeps something for revisions, such as a snapshot to compare the next one with."""

    # A cache: a backup that does not find what was kept reads everything.
    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove what is kept for revisions of this job that are not in `revision_ids`.

        Called with the complete revisions that are left when one was forgotten, and with no revision when the job is
        given up. No backup of the job runs meanwhile.

        Raises:
            SourceError: the source can not be reached.
        """


class Import(Protocol):
    """An image that was taken elsewhere: all of it, or its differences from an earlier snapshot."""

    @property
    def base(self) -> str | None:
        """Name of the snapshot that it differs from; None for a whole image.

        This is the `name` of an earlier import, or `backy-<id>` with the id of a revision.
        """

    @property
    def name(self) -> str | None:
        """Name of the snapshot that the image is of. Later imports refer to it. None if it has no name."""

    def snapshot(self, base: Image | None) -> Snapshot:
        """Return the image, made of the image of `self.base` and the differences, which `changes` yields."""


class RestoreTarget(Protocol):
    """A place that an image is restored to. Every byte of the image is either written or zeroed, once."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`. Called from several threads.

        Raises:
            TargetError, OSError: `data`, or the data of an earlier call, can not be written.
        """

    def zero(self, offset: int, length: int) -> None:
        """Fill a range with zeroes or make it a hole. Called from several threads. Raises as `pwrite`."""

    def finish(self) -> None:
        """Make everything durable. Called once, after the last write of a successful restore. Raises as `pwrite`."""


@dataclass(frozen=True)
class Stored:
    """The result of storing a revision."""

    bytes: int
    """Total size of the new files."""
    durable: bool = True
    """Whether the revision survives a power loss. If not, nothing builds upon it after the machine has stopped."""
    damaged: tuple[ChunkDamageError, ...] = ()
    """Damage of the parent's chunks that was found. The new revision does not need these chunks."""


class ImageWriter(Protocol):
    """A new revision while it is stored. Chunks for which nothing is called stay as they are in the parent."""

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        """Store `data` as chunk `index`, whose id is `chunk_id`. Return how many bytes differ from the parent.

        `previous` is the id of the parent's chunk at this index; None if that is a zero chunk or there is none. A
        storage that would have to read more to compare returns the length of `data`. Called from several threads, once
        for a chunk, in any order.
        """

    def zero(self, index: int) -> None:
        """Store zeroes as chunk `index`, which has data in the parent."""

    # Nothing refers to the chunks before this, so a crash at any earlier time leaves only files to clean up.
    def commit(self) -> Stored:
        """Make everything that was written durable. The core writes map and record after this."""


class ImageReader(Protocol):
    """Reads a stored revision chunk by chunk. The core compares each chunk with its id, so a reader need not."""

    # Both get index and id, because storages of raw images need the one and stores of chunks the other.
    def read(self, index: int, chunk_id: bytes) -> bytes:
        """Return chunk `index`, whose id is `chunk_id`. Called from several threads, never for a zero chunk.

        Raises:
            ChunkDamageError: the chunk is missing, unreadable, or known to be damaged.
        """

    def probe(self, index: int, chunk_id: bytes) -> int | None:
        """Return how many bytes of files have to be read for chunk `index`, without reading them; None if unknown.

        Raises:
            ChunkDamageError: a file of the chunk is missing or has an impossible size.
        """


@dataclass(frozen=True)
class Purged:
    """The files that a purge removed."""

    files: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Held:
    """Files that are kept though no revision refers to them, such as the bases of deltas."""

    files: int = 0
    bytes: int = 0


class Storage(Protocol):
    """Keeps the images of a repository."""

    # The core asks these instead of the storage's name, so that storages of plugins are treated like its own.
    @property
    def raw(self) -> bool:
        """Whether the file `<id>` is the raw image itself. If so, the core keeps a link `last` to the newest one."""

    @property
    def shares_chunks(self) -> bool:
        """Whether all revisions share a chunk that has the same id, so that it has to be checked only once."""

    def initialize(self) -> None:
        """Prepare the repository's directory at `init`.

        Raises:
            StorageError: this storage can not work in the directory; the text says what can be used instead.
        """

    def create(
        self, revision_id: str, parent: str | None, size: int, reliable: Container[bytes]
    ) -> AbstractContextManager[ImageWriter]:
        """Begin revision `revision_id` of `size` bytes as a copy of `parent`; without a parent, begin with zeroes.

        The parent may have another size.

        `reliable` has the ids of the chunks that may be built upon. Every other chunk is stored anew, even if there are
        files of it. If it ends with an exception, the context removes what it wrote for this revision alone.
        """

    def open(self, revision_id: str) -> AbstractContextManager[ImageReader]:
        """Open a complete revision for reading.

        Missing files are no error here: `ImageReader.read` raises it for the chunks that need them. If chunks are
        shared, a scrub opens the revision "" and reads any chunk.
        """

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        """Replace the damaged chunk `index` of a revision by `data`, durably. `chunk_id` is the id of `data`."""

    def remove(self, revision_id: str) -> None:
        """Remove the files that belong to this revision alone, if there are any. `purge` removes shared ones."""

    def held(self, live: Container[bytes]) -> Held:
        """Count the files that are kept only because chunks in `live` are made of them."""

    def purge(self, live: Container[bytes]) -> Purged:
        """Remove every chunk that is not in `live` and that no live chunk is made of.

        No other command but mounts uses the storage meanwhile. A mount reads a chunk again if it fails its check.
        """


@runtime_checkable
class DisposableStorage(Storage, Protocol):
    """A storage that removes its last files when all revisions have been converted to another storage."""

    def dispose(self) -> None:
        """Remove everything that `initialize` and `purge` leave. Some of it may be gone already."""


@dataclass(frozen=True)
class Mismatch:
    """A chunk that differs between a snapshot and the stored image."""

    index: int
    cause: str
    """The cause in a few words."""
    expected: bytes | None
    """The bytes of the source."""
    found: bytes | None
    """The stored bytes; None if they can not be read."""
    damage: ChunkDamageError | None = None
    """The damage of the stored chunk; None if the chunk is sound but has other content than the source."""


MismatchHandler = Callable[[Mismatch], None]
"""Called for every mismatch when it is found, by the thread that called `verify`."""


@dataclass(frozen=True)
class Report:
    """How much of an image a verifier compared."""

    verifier: str
    checked: int
    """Number of chunks that were compared. Holes of both images count as compared."""
    total: int
    """Number of chunks of the image."""
    out_of_time: bool = False
    """Whether the verifier stopped before it had compared all chunks that it had chosen."""


# A mismatch is no exception: a verifier goes on after it, and the core decides what follows from it.
class Verifier(Protocol):
    """Compares a fresh revision with its snapshot."""

    def verify(self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress) -> Report:
        """Compare both, call `mismatch` for each chunk that differs, and report how much was compared.

        Call `progress` with the bytes compared. A chunk of `image` that can not be read is a mismatch, too.

        Raises:
            SourceError: the snapshot can not be read.
        """


@dataclass(frozen=True)
class ConsoleCommand:
    """A command that a plugin adds to the scheduler's console and to `backy client`."""

    name: str
    """One word. A command of backy that has the same name wins."""
    help: str
    """One sentence for the list of commands."""
    run: Callable[[Sequence[str]], str]
    """Called in a thread with the words after the name. Returns the text to show, or raises a BackyError to show."""
    changes: bool = False
    """Whether the command changes anything. Such commands can be switched off together."""
