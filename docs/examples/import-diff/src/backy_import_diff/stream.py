"""Reads a stream of `rbd export-diff` or `rbd merge-diff`, from a file or a pipe, as an image that can be imported.

Ceph's doc/dev/rbd-diff.rst describes the formats. Ceph 16 also writes a record `p` of one byte (whether a snapshot is
protected). A diff has metadata first, each kind at most once and in any order, then data in ascending order. All
numbers are little endian.

The parser leaves data where it is: it maps ascending ranges of the image, the *pieces*, to places in the stream, which
takes 24 bytes of memory for each.
"""

import os
import shutil
import stat
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, NoReturn

from backy.api import CHUNK_SIZE, Extent, Image, Snapshot, SourceError, chunk_count
from backy.durable import pread_all
from backy.errors import raising
from backy.extents import filled

STANDARD_INPUT: Final = 0
ZEROES: Final = -1
"""The place of a piece that reads as zeroes."""
DIFFS: Final = {b"rbd diff v1\n": 1, b"rbd diff v2\n": 2}
"""First lines of streams, with the versions of the format."""
_FIRST_LINE: Final = len(b"rbd diff v1\n")
# Ceph has maps for 256 million objects at most, of 4 MiB each by default.
LARGEST_IMAGE: Final = 2**50
"""Bytes of the largest image that is accepted."""
# Far more than Ceph takes, and little enough to read before it is checked.
LONGEST_NAME: Final = 4096
"""Bytes of the longest name of a snapshot that is accepted."""


class Piece(NamedTuple):
    """A range of an image and the place of its data."""

    offset: int
    length: int
    place: int
    """The byte of the stream where the data begins, or `ZEROES`."""

    @property
    def end(self) -> int:
        """The first byte after the piece."""
        return self.offset + self.length


class Pieces:
    """Pieces in ascending order without overlaps."""

    def __init__(self) -> None:
        # Arrays instead of a list of tuples, which would take several times the memory.
        self._offsets = array("q")
        self._lengths = array("q")
        self._places = array("q")

    def append(self, piece: Piece) -> None:
        """Add a piece behind all others."""
        self._offsets.append(piece.offset)
        self._lengths.append(piece.length)
        self._places.append(piece.place)

    def __iter__(self) -> Iterator[Piece]:
        return map(Piece, self._offsets, self._lengths, self._places)

    @property
    def end(self) -> int:
        """The first byte after the last piece."""
        return self._offsets[-1] + self._lengths[-1] if self._offsets else 0

    def within(self, start: int, end: int) -> Iterator[Piece]:
        """Yield the pieces from `start` to before `end`, cut at both."""
        # The last piece that begins at or before `start` may reach beyond it.
        for index in range(max(bisect_right(self._offsets, start) - 1, 0), len(self._offsets)):
            piece = Piece(self._offsets[index], self._lengths[index], self._places[index])
            if piece.offset >= end:
                return
            if piece.end > start:
                first, length = max(piece.offset, start), min(piece.end, end) - max(piece.offset, start)
                yield Piece(first, length, ZEROES if piece.place == ZEROES else piece.place + first - piece.offset)


@dataclass
class StreamImport:
    """The image in a stream, as a `backy.api.Import`, and its snapshot."""

    file: BinaryIO
    title: str
    base: str | None
    """The snapshot that the pieces are a difference from; None if they are the whole image."""
    name: str | None
    """The snapshot that the stream leads to; None if it leads to the current state of the image."""
    size: int
    """Bytes of the image."""
    pieces: Pieces
    _beneath: Image | None = None

    def snapshot(self, base: Image | None) -> Snapshot:
        """Return the image that the stream makes of `base`, which is the image of the snapshot `base`."""
        self._beneath = base
        return self

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes in order: a chunk is a hole if neither the stream nor the base has data in it."""
        has_data = bytearray(chunk_count(self.size))
        for extent in chain(self._beneath.extents() if self._beneath else (), self._parts()):
            start, end = extent.offset // CHUNK_SIZE, chunk_count(min(extent.end, self.size))
            # The image may have become smaller, so the base may have data beyond the new end.
            if extent.data and extent.offset < self.size:
                has_data[start:end] = b"\1" * (end - start)
        start = 0
        while start < len(has_data):
            is_data = has_data[start]
            # Not chunk by chunk: an image of many TiB may have nearly no data.
            stop = has_data.find(1 - is_data, start)
            stop = len(has_data) if stop < 0 else stop
            yield Extent(start * CHUNK_SIZE, min(stop * CHUNK_SIZE, self.size) - start * CHUNK_SIZE, bool(is_data))
            start = stop

    def changes(self) -> Iterator[Extent] | None:
        """Yield the ranges that differ from the base; None if the stream has all of the image."""
        if self._beneath is None:
            return None
        # A stream does not mention zeroes behind the old end, but the base does not have them.
        return filled(self._parts(), self._beneath.size, self.size)

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError if they can not be read."""
        if offset + length > self.size:
            raise SourceError(f"{self.title} is of an image of {self.size} bytes: there are no {length} at {offset}")
        data = bytearray(length)
        pieces = list(self.pieces.within(offset, offset + length))
        # The base may end within the range; behind its end there are zeroes. What is damaged there may be replaced.
        known = min(length, self._beneath.size - offset) if self._beneath else 0
        if self._beneath and known > 0 and sum(piece.length for piece in pieces) < length:
            data[:known] = self._beneath.pread(offset, known)
        for piece in pieces:
            data[piece.offset - offset : piece.end - offset] = self._read(piece)
        return bytes(data)

    def _parts(self) -> Iterator[Extent]:
        return (Extent(piece.offset, piece.length, data=piece.place != ZEROES) for piece in self.pieces)

    def _read(self, piece: Piece) -> bytes:
        if piece.place == ZEROES:
            return bytes(piece.length)
        data = pread_all(self.file.fileno(), piece.length, piece.place)
        if len(data) < piece.length:
            raise SourceError(f"{self.title} became shorter while it was read")
        return data


class Diff:
    """Reads a whole stream from a file; raises SourceError, with the position, if it is none, or not a sound one."""

    def __init__(self, file: BinaryIO, title: str) -> None:
        self._file = file
        self._title = title
        start = file.tell()
        self._length = file.seek(0, os.SEEK_END)
        file.seek(start)
        self._metadata: dict[bytes, str | int] = {}
        self._pieces = Pieces()

    def read(self) -> StreamImport:
        """Return what can be imported."""
        version = DIFFS.get(self._exactly(_FIRST_LINE))
        if version is None:
            self._refuse("is no stream of 'rbd export-diff'")
        while (tag := self._exactly(1)) != b"e":
            # Version 2 has the length of each record, so that unknown metadata can be skipped.
            length = self._number(8) if version > 1 else None
            if tag in {b"w", b"z"}:
                self._data(tag, length)
            elif self._pieces.end:
                self._refuse(f"has a record {_shown(tag)} behind data")
            elif tag in self._metadata:
                self._refuse(f"has a second record {_shown(tag)}")
            else:
                self._metadata[tag] = self._metadatum(tag, length)
        if self._file.read(1):
            self._refuse("goes on behind its end")
        since, name = (self._metadata.get(tag) for tag in (b"f", b"t"))
        return StreamImport(self._file, self._title, since, name, self._size(), self._pieces)  # type: ignore[arg-type]  # names are texts

    def _metadatum(self, tag: bytes, length: int | None) -> str | int:
        if tag in {b"f", b"t"}:
            name = self._name()
            self._check(tag, length, 4 + len(name.encode()))
            return name
        if tag == b"s":
            self._check(tag, length, 8)
            return self._number(8)
        if length is None:
            self._refuse(f"has an unknown record {_shown(tag)}")
        # Some versions of Ceph write a length of 8 for the record `p`, which has one byte.
        self._leave_out(1 if (tag, length) == (b"p", 8) else length)
        return 0

    def _name(self) -> str:
        length = self._number(4)
        if length > LONGEST_NAME:
            self._refuse(f"names a snapshot by {length} bytes")
        try:
            name = self._exactly(length).decode()
        except UnicodeDecodeError:
            name = ""
        # Names are shown to people, so control characters must not reach their terminals.
        if not name or not name.isprintable():
            self._refuse("names a snapshot by what is no text")
        return name

    def _data(self, tag: bytes, length: int | None) -> None:
        offset, count, size = self._number(8), self._number(8), self._size()
        stored = count if tag == b"w" else 0
        self._check(tag, length, 16 + stored)
        if offset < self._pieces.end:
            self._refuse(f"has data of byte {offset} of the image behind that of byte {self._pieces.end}")
        if not count or offset + count > size:
            self._refuse(f"has {count} bytes at {offset} of an image of {size} bytes")
        self._pieces.append(Piece(offset, count, self._file.tell() if stored else ZEROES))
        self._leave_out(stored)

    def _size(self) -> int:
        size = self._metadata.get(b"s")
        if not isinstance(size, int):
            self._refuse("does not tell the image's size before its data")
        if size > LARGEST_IMAGE:
            self._refuse(f"is of an image of {size} bytes, more than Ceph can have")
        return size

    def _check(self, tag: bytes, length: int | None, expected: int) -> None:
        if length is not None and length != expected:
            self._refuse(f"has a record {_shown(tag)} of {length} bytes in place of {expected}")

    def _number(self, length: int) -> int:
        return int.from_bytes(self._exactly(length), "little")

    def _exactly(self, length: int) -> bytes:
        """Read a few bytes."""
        data = self._file.read(length)
        self._leave_out(length - len(data))
        return data

    def _leave_out(self, length: int) -> None:
        """Pass by any number of bytes."""
        if self._file.tell() + length > self._length:
            self._file.seek(self._length)
            self._refuse("is cut short")
        self._file.seek(length, os.SEEK_CUR)

    def _refuse(self, what: str) -> NoReturn:
        raise SourceError(f"{self._title} {what} (at byte {self._file.tell()}); nothing was imported")


def _shown(tag: bytes) -> str:
    return repr(tag.decode("latin-1"))


@contextmanager
def opened_stream(path: str, folder: Path) -> Iterator[StreamImport]:
    """Open a stream from a file, or from standard input if `path` is "-", and check all of it.

    The content of a pipe is kept in a temporary file in `folder`.

    Raises:
        SourceError: the stream can not be read or is not sound.
    """
    name = "standard input" if path == "-" else path
    with ExitStack() as stack:
        with raising(SourceError, name):
            # A duplicate, because standard input must stay open when this stream is closed.
            descriptor = os.dup(STANDARD_INPUT) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            file: BinaryIO = stack.enter_context(os.fdopen(descriptor, "rb"))
            # Only a file can be read again later, so what comes from anything else is kept, if it begins as a stream.
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                kept = stack.enter_context(tempfile.TemporaryFile(dir=folder))
                kept.write(begin := file.read(_FIRST_LINE))
                if begin in DIFFS:
                    shutil.copyfileobj(file, kept, CHUNK_SIZE)
                kept.seek(0)
                file = kept
            stream = Diff(file, name).read()
        yield stream
