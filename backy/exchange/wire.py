"""Messages between two backup servers, over a pair of pipes.

A message is its length, four bytes, little endian, and MessagePack. The side that stores asks, and the side that sends
answers. docs/reference/protocol.md describes all messages and their order.
"""

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Annotated, Any, TypeVar

import msgspec
import zstandard

from backy.api import CHUNK_SIZE, ID_PATTERN, LARGEST_IMAGE, PAGE_SIZE, chunk_count
from backy.errors import PeerError
from backy.repository.journal import Head
from backy.repository.revision import Time
from backy.system.limits import Limit

VERSION = 1
_LENGTH = struct.Struct("<I")
_LONGEST = 128 * 2**20
"""Bytes that no message exceeds: the map of an image of 16 TiB without holes, compressed."""
_PAGES = CHUNK_SIZE // PAGE_SIZE
_PIECE = 2**20
"""Bytes that are read at once, so that no memory is taken for what only the length claims."""

Id = Annotated[str, msgspec.Meta(pattern=f"^(?:{ID_PATTERN.pattern})$")]
Index = Annotated[int, msgspec.Meta(ge=0, lt=chunk_count(LARGEST_IMAGE))]


class Message(msgspec.Struct, tag=True, array_like=True):
    """What one side says to the other one."""


class Hello(Message):
    """The first message, from the side that was started by a person or the scheduler."""

    name: str
    """Name of the repository, that of its directory; that of a disk is below its machine: `web/data`."""
    appending: bool
    """Whether it offers revisions; else it asks for some."""
    dry_run: bool = False
    """Whether the side that stores only tells what it would copy."""
    version: int = VERSION
    session: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{0,32}$")] = ""
    """Name of a connection that the first one may take over, if this one offers revisions; empty for the first one."""
    others: Annotated[list[str], msgspec.Meta(max_length=16)] = []
    """What the first one may find: the names of others."""


class Question(Message):
    """What the side that stores says after the `Hello`."""


class List(Question):
    """Asks for a `Listing`."""


class Listed(msgspec.Struct, array_like=True):
    """A revision that can be had."""

    id: Id
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    timestamp: Time
    tags: tuple[str, ...]
    """The tags in force."""
    doubt: bytes | None
    """Its state if that is in doubt, else None."""


class Listing(Message):
    """What the sender has, without what is in its trash."""

    revisions: Annotated[list[Listed], msgspec.Meta(max_length=200_000)]
    disks: list[str]
    """Names of the disks of a machine with several, which are asked for one by one; else none."""
    head: Head | None
    """The last line of the sender's journal, by which the receiver is its witness."""
    witnessed: list[Head]
    """The heads of other journals that the sender has seen, and is the witness of."""


class Get(Question):
    """Asks for the `Files` of a revision."""

    id: Id
    base: Id | None
    """A revision that both sides have."""


class Files(Message):
    """The files of a revision as they are stored, but for the map."""

    record: bytes
    state: bytes
    attachments: bytes
    """Empty if there are none."""
    map: bytes
    """The frame of the map, crossed with that of the base."""
    lost: str = ""
    """Why the sender does not have them; empty if it does."""


class Want(Question):
    """Asks for a `Chunk` for each of `indexes`, which ascend."""

    id: Id
    base: Id | None
    indexes: Annotated[list[Index], msgspec.Meta(max_length=chunk_count(LARGEST_IMAGE))]
    unread: bool = False
    """Whether frames as they are stored will do, which the sender has not compared with their ids."""


class Chunk(Message):
    """The content of a chunk: all of it, or the pages that the chunk of the base at this index lacks."""

    index: Index
    pages: Annotated[list[Annotated[int, msgspec.Meta(ge=0, lt=_PAGES)]], msgspec.Meta(max_length=_PAGES)] | None
    """Numbers of the pages, ascending; None if the content is whole."""
    frame: bytes
    lost: str = ""
    """Why the sender does not have it; empty if it does."""


class Done(Question):
    """The last message of the side that stores."""

    copied: list[Id]
    """Revisions that the receiver did not have before."""
    problems: list[str]
    """Why others were not copied."""
    bytes: int
    """Length of the chunks that it asked for, or would ask for."""
    head: Head | None
    """The last line of the receiver's journal, as in `Listing`."""


NOTHING = Done([], [], 0, None)
"""What is said where nothing is copied."""


class Refusal(Message):
    """The other side can not go on, and why."""

    text: str


Said = TypeVar("Said", bound=Message)
_ANY = msgspec.msgpack.Decoder(Hello | List | Listing | Get | Files | Want | Chunk | Done | Refusal)


@dataclass(eq=False)
class Wire:
    """One connection to the other side."""

    reading: IO[bytes]
    writing: IO[bytes]
    limits: Sequence[Limit] = ()
    """How fast it sends and receives at most."""
    beside: bool = False
    """Whether other processes use others beside it."""

    def close(self) -> None:
        """Say no more, by which the other side ends."""
        with suppress(OSError):
            self.writing.close()

    def send(self, message: Message) -> None:
        """Send a message; raises PeerError if nobody receives it."""
        content = msgspec.msgpack.encode(message)
        try:
            self.writing.write(_LENGTH.pack(len(content)))
            self.writing.write(content)
            self.writing.flush()
        except OSError as error:
            self.receive(Hello)  # nobody says that; raises what it said before it ended
            raise PeerError("the other side has ended") from error
        self._count(len(content))

    def receive(self, kind: type[Said]) -> Said:
        """Return the next message.

        Raises:
            PeerError: there is none, it is no message of this kind, or the other side can not go on.
        """
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        # several connections bring chunks at the same time, and each of these may be kept twice
        if length > (2 * CHUNK_SIZE if kind is Chunk else _LONGEST):
            raise PeerError(f"the other side wants to send {length} bytes at once")
        content = self._exactly(length)
        self._count(length)
        try:
            message: Any = _ANY.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PeerError(f"the other side does not speak the protocol: {error}") from error
        if isinstance(message, kind):
            return message
        if isinstance(message, Refusal):
            raise PeerError(f"the other side says: {message.text}")
        raise PeerError(f"the other side sent {type(message).__name__}, which does not belong here")

    def ask(self, question: Message, kind: type[Said]) -> Said:
        """Send a question and return the answer; raises PeerError."""
        self.send(question)
        return self.receive(kind)

    def _exactly(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            piece = self.reading.read(min(_PIECE, length - len(content)))
            if not piece:
                raise PeerError("the other side has ended too early")
            content += piece
        return bytes(content)

    def _count(self, length: int) -> None:
        for limit in self.limits:
            limit.take(length)


def framed(content: bytes) -> bytes:
    """Return content as one zstd frame with its length and a checksum, as storages keep them."""
    return zstandard.ZstdCompressor(1, write_checksum=True).compress(content)


def unframed(frame: bytes, longest: int) -> bytes:
    """Return the content of a frame; raises PeerError if it is damaged, or has more than `longest` bytes."""
    try:
        # before any memory is taken
        if not 0 <= zstandard.frame_content_size(frame) <= longest:
            raise PeerError("the other side sent more than there can be")
        return zstandard.ZstdDecompressor().decompress(frame, longest, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise PeerError(f"the other side sent a damaged frame: {error}") from error


def crossed(content: bytes, other: bytes) -> bytes:
    """Return content with zeroes for the bytes that `other` has as well; crossing that again gives the content."""
    length = min(len(content), len(other))
    first, second = (int.from_bytes(one[:length], "little") for one in (content, other))
    return (first ^ second).to_bytes(length, "little") + content[length:]
