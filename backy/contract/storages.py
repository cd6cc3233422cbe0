"""What a storage plugin makes: storages with their writers and readers."""

from collections.abc import Collection, Container, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from backy.contract.images import Extent, identify
from backy.errors import ChunkDamageError


def checked(chunk_id: bytes, content: bytes, length: int | None = None) -> bytes:
    """Return `content` if its id is `chunk_id` and its length is `length`; None accepts any length.

    Raises:
        ChunkDamageError: id or length differ; the error has the content as evidence.
    """
    # The length too: a map that was made of wrong parts may name a whole chunk where the image has a short one.
    if length not in (None, len(content)) or identify(content) != chunk_id:
        raise ChunkDamageError(chunk_id, "its content is damaged: it does not have this id", content)
    return content


@dataclass(frozen=True)
class Stored:
    """The result of storing a revision."""

    bytes: int
    """Total size of the new files."""
    durable: bool = True
    """Whether the revision survives a power loss. If not, nothing builds upon it after the machine has stopped."""
    damaged: tuple[ChunkDamageError, ...] = ()
    """Damage of the parent's chunks that was found. The new revision does not need these chunks."""
    compared: Collection[int] = ()
    """Indexes of chunks that were there already, and were read back and compared with what was to be stored."""


class ImageWriter(Protocol):
    """A new revision while it is stored. Chunks for which nothing is called stay as they are in the parent."""

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        """Store `data` as chunk `index`, whose id is `chunk_id`. Return how many bytes differ from the parent.

        `previous` is the id of the parent's chunk at this index; None if that is a zero chunk or there is none, and
        then the core counts what differs. A storage that can not compare pages returns the length of `data`. Called
        from several threads, once for a chunk, in any order.
        """

    def zero(self, index: int) -> None:
        """Store zeroes as chunk `index`, which has data in the parent."""

    # Nothing refers to the chunks before this, so a crash at any earlier time leaves only files to clean up.
    def commit(self) -> Stored:
        """Make everything that was written durable. The core writes map and record after this."""


@runtime_checkable
class HintedImageWriter(ImageWriter, Protocol):
    """A writer that need not read the parent's chunk if it is told what differs."""

    def write_changes(self, index: int, chunk_id: bytes, data: bytes, previous: bytes, told: Iterable[Extent]) -> int:
        """Store a chunk as `write` does. The source says that what is outside of `told` is as in the parent.

        Called in place of `write` if a verifier will look for what the source left out. Return how many bytes differ,
        or how many were told.
        """


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


@runtime_checkable
class FramedImageReader(Protocol):
    """A reader of a storage that keeps most chunks as zstd frames, which a copy on another server can have as they are.

    Such a frame has its content's length and a checksum, a window of at most `CHUNK_SIZE`, and no dictionary.
    """

    def frame(self, index: int, chunk_id: bytes) -> bytes | None:
        """Return the frame of a chunk, which need not be looked into; None if the chunk is stored otherwise.

        Raises:
            ChunkDamageError: as `read`.
        """


@runtime_checkable
class FramedImageWriter(Protocol):
    """A writer that can store a zstd frame that somebody else has made, as `FramedImageReader` describes it."""

    def offer(self, data: bytes, frame: bytes) -> None:
        """Take the frame of a chunk that the same thread will write next. Whether it is of use is up to the writer.

        The frame may come from a stranger: that it gives `data`, and nothing behind it, is all that is known of it.
        """


@dataclass(frozen=True)
class Purged:
    """The files that a purge removed."""

    files: int = 0
    """How many files were removed."""
    bytes: int = 0
    """Their sizes."""


@dataclass(frozen=True)
class Held:
    """Files that are kept though no revision refers to them, such as the bases of deltas."""

    files: int = 0
    """How many files are held."""
    bytes: int = 0
    """Their sizes."""


@dataclass(frozen=True)
class Leftover:
    """What a backup stored that was interrupted or failed."""

    bytes: int
    """Space that it takes."""
    since: datetime
    """When the last of it was stored."""


class Storage(Protocol):
    """Keeps the images of a repository."""

    # The core asks these instead of the storage's name, so that storages of plugins are treated like its own.
    @property
    def raw(self) -> bool:
        """Whether the file `<id>` is the raw image itself. If so, the core keeps a link `last` to the newest one."""

    @property
    def shares_chunks(self) -> bool:
        """Whether all revisions share a chunk that has the same id, so that it has to be checked only once."""

    # Not the type and not the address: these stay the same when another store answers, and change when one moves.
    @property
    def identity(self) -> str:
        """The random id that the store has in its own marker, and takes along when it is copied or moved.

        Each revision's state names it. A revision is never looked for in a store that has another one.

        Raises:
            StorageError: there is no store, or its marker is damaged or can not be reached.
        """

    def initialize(self, identity: str) -> None:
        """Prepare the store, durably; make `identity` its own, in its marker, unless it has one already.

        Raises:
            StorageError: this storage can not work in the directory; the text says what can be used instead.
        """

    def create(
        self, revision_id: str, parent: str | None, size: int, reliable: Container[bytes]
    ) -> AbstractContextManager[ImageWriter]:
        """Begin revision `revision_id` of `size` bytes as a copy of `parent`; without a parent, begin with zeroes.

        The parent may have another size.

        `reliable` has the ids of the chunks that may be built upon. Every other chunk is stored anew, even if there are
        files of it, unless these are read back, are the chunk, and are synced. If it ends with an exception, the
        context removes what it wrote for this revision alone, or keeps it as a `Leftover`.
        """

    def open(self, revision_id: str) -> AbstractContextManager[ImageReader]:
        """Open a complete revision for reading.

        Missing files are no error here: `ImageReader.read` raises it for the chunks that need them. If chunks are
        shared, a scrub opens the revision "" and reads any chunk.
        """

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        """Replace the damaged chunk `index` of a revision by `data`, durably. `chunk_id` is the id of `data`."""

    def remove(self, revision_id: str) -> None:
        """Remove the files that belong to this revision alone, if there are any. `purge` removes shared ones.

        Another revision may be made meanwhile, by another process, which builds upon a third one.
        """

    def held(self, live: Container[bytes]) -> Held:
        """Count the files that are kept only because chunks in `live` are made of them."""

    def purge(self, live: Container[bytes]) -> Purged:
        """Remove every chunk that is not in `live` and that no live chunk is made of.

        No other command but mounts uses the storage meanwhile. A mount reads a chunk again if it fails its check.
        """


# The optional members have protocols of their own, without those of `Storage`: to ask whether an object has all members
# of `Storage` would read the identity, which may fail.


@runtime_checkable
class ExplainedStorage(Protocol):
    """A storage that tells how its data come back without backy."""

    @property
    def restore_hint(self) -> str:
        """One line for `README` in the repository, without a full stop. `restore.py` there lists the revisions."""


@runtime_checkable
class ChoosyStorage(Protocol):
    """A storage that has a verifier in mind, for instance because reading from it is slow."""

    @property
    def verifier(self) -> str | None:
        """Name of the verifier to use unless the job names one, rather than that of the source; None for no wish."""


@runtime_checkable
class Parallel(Protocol):
    """A storage, snapshot or restore target that knows how many chunks to work on at once, as each waits for a network.

    Of two that work together, the larger number counts.
    """

    @property
    def parallel(self) -> int:
        """How many threads read or write chunks, 1 to 64. Each takes some 16 MiB of memory."""


@runtime_checkable
class ResumingStorage(Protocol):
    """A storage that keeps what an interrupted or failed backup stored, for the next one to go on with.

    That is one image at most, and the next backup replaces it. A purge leaves it alone. The core discards it after a
    complete revision, after a week, and when the disk is full.
    """

    def leftover(self) -> Leftover | None:
        """Return what is kept; None if there is nothing."""

    def discard(self) -> None:
        """Stop keeping it. The next purge removes it, if this does not."""


@runtime_checkable
class SharingStorage(Protocol):
    """A storage whose files can share space with those of other repositories in the same base directory."""

    def join(self) -> int:
        """Let them share again, as after a copy by cp or rsync; return the bytes that are not taken twice any more.

        The lock of backups is held. What can not be shared is no error.
        """


@runtime_checkable
class ListedStorage(Protocol):
    """A storage that can list all chunks at once, faster than `ImageReader.probe` asks for each."""

    def inventory(self) -> Mapping[bytes, int]:
        """Return the size of what is stored for each chunk, by id. A light scrub asks for it once.

        A chunk whose parts are not all there has no place in it. Only storages that share chunks are asked.

        Raises:
            StorageError: the list can not be had; the scrub ends, and nothing is taken for missing.
        """


@runtime_checkable
class RecordKeepingStorage(Protocol):
    """A storage away from this machine that keeps records, too, so that `init --from` can make the directory anew.

    The names are `<id>.map`, `<id>.state`, `<id>.rev`, `README`, `config` and `seq`. The core calls one method at a
    time, and holds the repository's lock. The storage finds its store by its section alone: who makes the
    directory anew does not know the id of the job. One repository writes to a store.
    """

    def publish(self, name: str, content: bytes) -> None:
        """Keep a file, durably and as a whole or not at all. It replaces one of that name, except for a `.rev`.

        Raises:
            StorageError: it can not be kept, or there is a `.rev` of that name already.
        """

    def withdraw(self, name: str) -> None:
        """Remove a file, durably. It may be gone already. Raises StorageError."""

    def published(self) -> Mapping[str, str]:
        """Return the SHA-256 of the content of every file, in hexadecimal, by name.

        The list is complete: what was published before is in it, and what was withdrawn is not.

        Raises:
            StorageError: the list can not be had. Then nothing is purged.
        """

    def fetch(self, name: str) -> bytes:
        """Return the content of a file; raises StorageError."""


@runtime_checkable
class DisposableStorage(Protocol):
    """A storage that removes its last files when all revisions have been converted to another storage."""

    def dispose(self) -> None:
        """Remove everything that `initialize` and `purge` leave. Some of it may be gone already."""
