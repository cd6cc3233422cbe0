"""Images as everybody sees them: chunks, extents, snapshots, and the job that they belong to."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

CHUNK_SIZE: Final = 4 * 2**20
"""Bytes of a chunk: the part of an image that is stored, named and checked at once."""

LARGEST_IMAGE: Final = 64 * 2**40
"""Bytes that no image exceeds. Whatever claims more is damaged, and would fill the memory."""

# Guests write whole blocks, and theirs have this size nearly everywhere.

PAGE_SIZE: Final = 4096
"""Bytes of a page: the part of a chunk that is compared at once."""

# Safe as the name of a file, of a snapshot and of an option's value. Nothing but this pattern looks into an id.

ID_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{7,63}")
"""Matches the id of a revision."""

ATTACHMENT_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,99}")
"""Matches the name of an attachment: a file that is kept beside an image."""

Progress = Callable[[int], None]
"""Called with the number of bytes that were done since the last call. May be called from any thread."""

Config = Mapping[str, Any]
"""A plugin's section of a configuration as it was written, with its `type`. `backy.config.typed` checks it."""


Consistency = Literal["guest", "crash", "none", "unknown"]
"""What an image is like: `guest` if the guest's file systems were frozen, `crash` if it is of one instant, as after a
power loss, `none` if it was written to while it was read, and `unknown` if nobody can tell."""


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
    """The offset of its first byte."""
    length: int
    """Its bytes, one at least."""
    data: bool
    """False for a hole."""

    @property
    def end(self) -> int:
        """The offset of the first byte after the extent."""
        return self.offset + self.length


_NO_STORE: Final = Path("/dev/null/store")
"""The folder of a job's store for plugins that are no storages: a path at which nothing can be made."""


@dataclass(frozen=True)
class Job:
    """The job that a plugin works for."""

    name: str
    """The name that users see: that of the repository's directory."""
    id: str
    """The id of the repository, which never changes. A source uses it in the names of what it keeps elsewhere."""
    directory: Path
    """The repository. Only the raw images of a storage lie here. A source does not touch it."""
    store: Path = _NO_STORE
    """The folder in the repository that only this storage uses. It makes the folder itself. Other plugins get none."""

    @property
    def base(self) -> Path:
        """The directory with the repositories of other jobs, too; OSError if that can not be told."""
        # a disk of a machine lies one deeper
        machine = self.directory.absolute().parent
        return machine.parent if (machine / "config").exists() else machine


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
class ExactSnapshot(Snapshot, Protocol):
    """A snapshot that knows single pages that changed, and can tell those of any chunk at once."""

    def changes_within(self, offset: int, length: int) -> Iterable[Extent]:
        """Yield those of `changes` that touch a range; none if they are not known. Called from several threads.

        A storage may leave out of a delta what is outside of them. A verifier that compares the chunk finds it if they
        are too few.
        """


@runtime_checkable
class DescribedSnapshot(Snapshot, Protocol):
    """A snapshot that comes with files, such as the description of its machine."""

    def attachments(self) -> Mapping[str, bytes]:
        """Return the files, 1 MiB at most, by names that `ATTACHMENT_PATTERN` matches; the repository keeps them.

        Raises:
            BackyError: they can not be had. The backup goes on, and `check` warns of it.
        """


@runtime_checkable
class AssessedSnapshot(Snapshot, Protocol):
    """A snapshot that knows whether the image is of one instant. That of any other snapshot is `unknown`."""

    @property
    def consistency(self) -> Consistency:
        """What the image is like, as far as it was read. The record has the answer after the last `pread`.

        `none` fails the backup unless the section `source` says `torn: accept`. For files and block devices that can
        not be frozen, `WriteWatch` of `backy_sources_file` tells. A source that knows what an operator can do about
        writers has the end of such a sentence in one more attribute, `advice`.
        """


@runtime_checkable
class FreezingSnapshot(AssessedSnapshot, Protocol):
    """A snapshot of a source that brings the programs that write to it to rest."""

    @property
    def unfrozen(self) -> bool:
        """Whether that failed this time. `check` warns of it."""


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


class ChunkedImage(Image, Protocol):
    """A stored image, which can be read chunk by chunk too. Every chunk is compared with its id."""

    def chunk_id(self, index: int) -> bytes:
        """Return the id of chunk `index`, 32 zero bytes for a chunk of zeroes."""

    def chunk(self, index: int) -> bytes:
        """Return the content of chunk `index`, from any thread.

        Raises:
            ChunkDamageError: it is missing, unreadable, or does not have its id.
        """


class LiveTarget(Protocol):
    """A place whose image can be used at once, while it fetches from backy what it does not have yet.

    After an interruption all can be called again, with the same address and token.
    """

    def serve(self, image: ChunkedImage, host: str, port: int, token: str) -> AbstractContextManager[int]:
        """Let the place read `image` from an address while the context lasts, which gives the port.

        `port` is 0 for any that is free. Who does not know `token` must not read anything.

        Raises:
            TargetError: nobody can listen there, or the place can not have an image of that size.
        """

    def require_new(self) -> None:
        """Raise TargetError if the image exists. Called before anything is made."""

    def prepare(self) -> None:
        """Make the image, of which all that is not there yet is read from the address, unless an earlier call has.

        Raises:
            TargetError: there is another image of that name, also one that another live restore has made, or this one
                can not be made.
        """

    def copy(self, progress: Progress) -> None:
        """Have the place read all that it does not have yet, while the image is used. Raises TargetError."""

    def commit(self) -> None:
        """Separate the image from the address, and free what has only zeroes. Raises TargetError."""

    def abort(self, token: str) -> None:
        """Remove the image unless it is complete: then log a warning. Nobody serves it.

        Raises:
            TargetError: it is in use, or another live restore, with another token, has made it.
        """
