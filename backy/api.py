"""What a plugin implements or receives: the whole vocabulary of backy, to be read in one go.

Sources, storages and verifiers are built by the factory hooks of `backy.hookspecs`; what a factory returns is one
of the protocols below. Offsets, lengths and sizes are bytes. A chunk is `CHUNK_SIZE` bytes of an image, the last one
may be shorter; chunk `n` starts at `n * CHUNK_SIZE` and is named by the BLAKE3-256 of its plain content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

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
"""Bytes of an image that are stored, named and checked together."""

PAGE_SIZE: Final = 4096
"""Bytes of a chunk that are compared together: the unit of a guest's write."""

ID_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{7,63}")
"""What a revision's id may look like: opaque to everything else, and always safe as a file name."""

Progress = Callable[[int], None]
"""Called with the number of bytes just dealt with; may be called from any thread."""

Config = Mapping[str, Any]
"""A plugin's section of a configuration as it was written, `type` included; `backy.config.typed` checks it."""


def identify(data: bytes) -> bytes:
    """Return the id of a chunk's content: BLAKE3 with 32 bytes of output, no key, as in its reference paper."""
    from blake3 import blake3  # not above: commands that hash nothing, such as `status`, need not load it

    return blake3(data).digest()


def chunk_count(size: int) -> int:
    """Return how many chunks an image of `size` bytes has."""
    return -(-size // CHUNK_SIZE)


class Extent(NamedTuple):
    """A range of an image that holds data, or a hole that reads as zeroes."""

    offset: int
    length: int
    data: bool

    @property
    def end(self) -> int:
        """The first byte after the extent."""
        return self.offset + self.length


@dataclass(frozen=True)
class Job:
    """What is backed up, as far as a plugin needs to know it."""

    name: str
    id: str
    """What names the repository even when it is moved: what a source keeps for it elsewhere bears this name."""
    directory: Path
    """The repository. A storage keeps its files here; a source leaves it alone."""


class Image(Protocol):
    """Anything that reads like a disk: a frozen source or a stored revision."""

    @property
    def size(self) -> int:
        """Bytes from the first to the last."""

    def extents(self) -> Iterable[Extent]:
        """Yield data and holes in order and without gaps from 0 to `size`. All data is a correct answer."""

    def pread(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `offset`, from any thread; holes read as zeroes.

        Raises:
            BackyError: the bytes can not be had, or the range reaches beyond `size`.
        """


class Snapshot(Image, Protocol):
    """A source frozen for one backup."""

    def changes(self) -> Iterable[Extent] | None:
        """Yield, in order, all that may differ from the revision that `Source.snapshot` was given as `parent`.

        A hole is what now reads as zeroes. What the image has grown by is a change. None means that the source can
        not tell: everything is read. Asked more than once, it gives the same answer.
        """


@runtime_checkable
class AssessedSnapshot(Snapshot, Protocol):
    """A snapshot of a source that brings to rest what writes to it, and knows whether that worked."""

    @property
    def consistent(self) -> bool:
        """False if the image is as after a power loss; the revision's record, `status` and `check` tell so then."""


class Source(Protocol):
    """Where an image comes from."""

    @property
    def verifier(self) -> str:
        """Name of the verifier that suits this source unless the job chooses one."""

    def snapshot(self, revision_id: str, parent: str | None) -> AbstractContextManager[Snapshot]:
        """Freeze the source as `revision_id` for the length of one backup.

        `parent` is the complete revision that the new one builds upon, None for a full backup. The context is left
        without an exception once the revision is complete, and with one when it will be thrown away.

        Raises:
            SourceError: there is no such source, or it can not be frozen.
            SourceBusyError: somebody else is backing it up; the command ends as busy.
        """


@runtime_checkable
class KeepingSource(Source, Protocol):
    """A source that keeps something of its own for revisions, such as a snapshot to compare the next one with."""

    def retain(self, revision_ids: Collection[str]) -> None:
        """Let go of all that is kept for revisions of this job but `revision_ids`, the complete ones that are left.

        Called when a revision was forgotten, and with none when the job is given up; no backup runs meanwhile. What is
        kept is a cache: a backup that misses it reads everything.

        Raises:
            SourceError: the source can not be reached.
        """


class Import(Protocol):
    """An image that was taken elsewhere, whole or as what differs from an earlier snapshot of it."""

    @property
    def since(self) -> str | None:
        """The snapshot that it differs from: `backy-<id>`, or the `name` of an earlier import; None if it is whole."""

    @property
    def name(self) -> str | None:
        """The snapshot that it is of, by which later imports may refer to it; None if it is of none."""

    def snapshot(self, base: Image | None) -> Snapshot:
        """Return the image, made of `base`, that of `since`, and what differs; `changes` tells what that is."""


class RestoreTarget(Protocol):
    """A place that an image is restored to, of the image's size; every byte is either written or zeroed, once."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`, from any thread.

        Raises:
            TargetError, OSError: it can not be written, now or some time before.
        """

    def zero(self, offset: int, length: int) -> None:
        """Let a range read as zeroes, whatever was there before; from any thread. Raises as `pwrite`."""

    def finish(self) -> None:
        """Make all of it durable; called once, at the end of a restore that came through. Raises as `pwrite`."""


@dataclass(frozen=True)
class Stored:
    """What a backup left in the storage."""

    bytes: int
    """Sizes of the new files."""
    durable: bool = True
    """Whether a power loss can not harm it any more. If not, it is not built upon once the machine has stopped."""
    damaged: tuple[ChunkDamageError, ...] = ()
    """Chunks of the parent that were found to be damaged on the way; the new revision does not need them."""


class ImageWriter(Protocol):
    """A new revision while it is stored. Chunks that are never mentioned stay as they are in the parent."""

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        """Store chunk `index`; called from several threads, once a chunk, in any order.

        `chunk_id` is the chunk's id, `previous` that of the parent's chunk at this index if it holds one. Returns how
        many bytes differ from the parent, as exactly as the storage can tell without reading more than it needs.
        """

    def zero(self, index: int) -> None:
        """Note that chunk `index`, which held data in the parent, is all zeroes now."""

    def commit(self) -> Stored:
        """Make everything written durable; the map and `.rev` follow after this."""


class ImageReader(Protocol):
    """A stored revision, chunk by chunk. The core compares each chunk with its id, so a reader need not."""

    def read(self, index: int, chunk_id: bytes) -> bytes:
        """Return chunk `index`, whose id is `chunk_id`; called from several threads, never for a zero chunk.

        Raises:
            ChunkDamageError: the chunk is missing, unreadable, or known to be damaged.
        """

    def probe(self, index: int, chunk_id: bytes) -> int | None:
        """Return how many bytes of files are read to get chunk `index`, None if that is not known, without reading it.

        Raises:
            ChunkDamageError: a file of it is missing or has an impossible size.
        """


@dataclass(frozen=True)
class Purged:
    """What a purge removed."""

    files: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Held:
    """What a storage holds for no revision's own sake, such as the bases of deltas."""

    files: int = 0
    bytes: int = 0


class Storage(Protocol):
    """How a repository keeps images."""

    @property
    def raw(self) -> bool:
        """Whether the file `<id>` is the raw image itself, fit for `dd`; only then is there a link `last` to it."""

    @property
    def shares_chunks(self) -> bool:
        """Whether a chunk's id alone says where it is stored, so that one look at it holds for all revisions."""

    def initialize(self) -> None:
        """Prepare the repository's directory at `init`.

        Raises:
            StorageError: this storage can not work there; the text says what can.
        """

    def create(
        self, revision_id: str, parent: str | None, size: int, reliable: Container[bytes]
    ) -> AbstractContextManager[ImageWriter]:
        """Begin `revision_id` of `size` bytes as a copy of `parent`, which may have another size, or from nothing.

        `reliable` has the ids of the chunks that may be built upon. Every other chunk is stored anew, whatever files are
        there. If it ends with an exception, the context removes what it wrote for this revision alone.
        """

    def open(self, revision_id: str) -> AbstractContextManager[ImageReader]:
        """Open a complete revision for reading; what is missing is found out by reading a chunk, and fails that alone.

        Where chunks are shared, a scrub opens the revision "" and reads whatever chunk is stored.
        """

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        """Replace what is stored as chunk `index` of a revision, and is damaged, by `data`, durably."""

    def remove(self, revision_id: str) -> None:
        """Drop the files that belong to this revision alone, if there are any; space shared with others is purged."""

    def held(self, live: Container[bytes]) -> Held:
        """Tell what is stored only because chunks in `live` are made of it, though no revision refers to it."""

    def purge(self, live: Container[bytes]) -> Purged:
        """Remove every chunk whose id is not in `live` and which no live chunk needs.

        Nobody writes then. Only mounts read meanwhile: if they do not get what they should, they read again afterwards.
        """


@runtime_checkable
class DisposableStorage(Storage, Protocol):
    """A storage that can be given up for another one. Without this, a conversion leaves what `initialize` made."""

    def dispose(self) -> None:
        """Remove all that is kept here but for what `remove` deals with; some of it may be gone already."""


@dataclass(frozen=True)
class Mismatch:
    """A chunk that differs between snapshot and stored image."""

    index: int
    cause: str
    """What is wrong, in a few words."""
    expected: bytes | None
    """The source's bytes."""
    found: bytes | None
    """The stored bytes; None if there are none to be read."""
    damage: ChunkDamageError | None = None
    """How the stored chunk is damaged; None if it is sound and simply not what the source has."""


MismatchHandler = Callable[[Mismatch], None]
"""Called for every mismatch as it is found, from the thread that verifies."""


@dataclass(frozen=True)
class Report:
    """How far a verifier looked."""

    verifier: str
    checked: int
    """Chunks compared; holes on both sides count as compared."""
    total: int
    """Chunks of the image."""
    out_of_time: bool = False
    """Whether the verifier stopped before it had looked at all that it meant to."""


class Verifier(Protocol):
    """How a fresh revision is checked against its snapshot."""

    def verify(self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress) -> Report:
        """Compare both, hand over each difference, and report how much was looked at.

        A difference is no exception: the core decides what follows from it. `progress` is told the bytes compared.

        Raises:
            SourceError: the snapshot can not be read any more.
        """


@dataclass(frozen=True)
class ConsoleCommand:
    """A command that a plugin adds to the scheduler's console and to `backy client`."""

    name: str
    """One word; those of backy itself come first."""
    help: str
    """A sentence for the list of commands."""
    run: Callable[[Sequence[str]], str]
    """Called in a thread with the words after the name; returns what is shown, or raises BackyError, which is shown."""
    changes: bool = False
    """Whether it changes anything: then it is switched off with the others that do."""
