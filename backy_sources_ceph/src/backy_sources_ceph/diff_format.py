"""The streams of `rbd export-diff`, `rbd merge-diff` and `rbd export --export-format 2`.

The formats are those of Ceph's doc/dev/rbd-diff.rst and doc/dev/rbd-export.rst, and what Ceph 16 writes beyond them: a
record `p` of one byte that tells whether a snapshot is protected, whose length some versions give as 8, and a line "rbd
image diffs v2" before the number of diffs. A diff has metadata first, each at most once and in any order, then data in
ascending order; all numbers are little endian. Version 2 tells the length of each record, so that metadata of later
versions can be left out. An image is a sequence of diffs, from one snapshot to the next and to what there is now.

Data is left where it is: what a stream says costs no memory but 24 bytes a record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from backy.api import SourceError
from backy_sources_ceph.pieces import ZEROES, Piece, Pieces, overlaid

DIFFS: Final = {b"rbd diff v1\n": 1, b"rbd diff v2\n": 2}
IMAGE: Final = b"rbd image v2\n"
IMAGE_DIFFS: Final = b"rbd image diffs v2\n"
LARGEST_IMAGE: Final = 2**50
"""Bytes; Ceph has maps for 256 million objects at most, which are 4 MiB each unless somebody chose otherwise."""
LONGEST_NAME: Final = 4096
"""Bytes of a snapshot's name, far more than Ceph takes."""


class Stream(Protocol):
    """What is read from its first byte to its last."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def position(self) -> int:
        """How many bytes were read or skipped."""

    def read(self, length: int) -> bytes:
        """Read a few bytes; fewer than `length` at the end only."""

    def skip(self, length: int) -> bool:
        """Pass by any number of bytes; false if the stream has fewer."""


@dataclass(frozen=True)
class Contents:
    """What a stream says of an image."""

    since: str | None
    """The snapshot that the image differs from by the pieces; None if they are all of it."""
    name: str | None
    """The snapshot that the image is of, if it is of one."""
    size: int
    """Bytes of the image."""
    pieces: Pieces


def parse(stream: Stream) -> Contents:
    """Read a whole stream.

    Raises:
        SourceError: it is none, or not a sound one; the text has the byte at which that was noticed.
    """
    reader = _Reader(stream)
    start = reader.exactly(len(IMAGE) - 1)
    if start in DIFFS:
        contents = _Diff(reader, DIFFS[start]).contents()
    elif start == IMAGE[:-1] and reader.exactly(1) == IMAGE[-1:]:
        contents = _image(reader)
    else:
        reader.refuse("is neither a stream of 'rbd export-diff' nor one of 'rbd export --export-format 2'")
    if stream.read(1):
        reader.refuse("goes on behind its end")
    return contents


def _image(reader: _Reader) -> Contents:
    """Read what follows the first line of an image: metadata, which is left out, and diffs that follow each other."""
    while reader.exactly(1) != b"E":
        reader.leave_out(reader.number(8))
    count = reader.exactly(8)
    if IMAGE_DIFFS.startswith(count):
        if count + reader.exactly(len(IMAGE_DIFFS) - len(count)) != IMAGE_DIFFS:
            reader.refuse("has no number of diffs")
        count = reader.exactly(8)
    contents = None
    for _ in range(int.from_bytes(count, "little")):
        version = DIFFS.get(reader.exactly(len(IMAGE) - 1))
        if version is None:
            reader.refuse("has something else where a diff should begin")
        diff = _Diff(reader, version).contents()
        if diff.since != (contents.name if contents else None):
            reader.refuse(f"has a diff since {diff.since!r}, which is not what the diff before it leads to")
        contents = _followed(contents, diff) if contents else diff
    if contents is None:
        reader.refuse("has no diffs")
    return contents


def _followed(contents: Contents, diff: Contents) -> Contents:
    """Return what an image becomes by a diff."""
    kept = contents.pieces.within(0, diff.size)
    return Contents(None, diff.name, diff.size, Pieces(overlaid(kept, diff.pieces)))


class _Reader:
    """The numbers and names in a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def position(self) -> int:
        return self._stream.position

    def refuse(self, what: str) -> NoReturn:
        raise SourceError(f"{self._stream.name} {what} (at byte {self._stream.position}); nothing was imported")

    def exactly(self, length: int) -> bytes:
        data = self._stream.read(length)
        if len(data) < length:
            self.refuse("is cut short")
        return data

    def leave_out(self, length: int) -> None:
        if not self._stream.skip(length):
            self.refuse("is cut short")

    def number(self, length: int) -> int:
        return int.from_bytes(self.exactly(length), "little")


class _Diff:
    """A diff behind its first line."""

    def __init__(self, reader: _Reader, version: int) -> None:
        self._reader = reader
        self._version = version
        self._metadata: dict[bytes, str | int] = {}
        self._pieces = Pieces()

    def contents(self) -> Contents:
        while (tag := self._reader.exactly(1)) != b"e":
            length = self._reader.number(8) if self._version > 1 else None
            if tag in {b"w", b"z"}:
                self._data(length, zeroes=tag == b"z")
            elif len(self._pieces):
                self._reader.refuse(f"has a record {_shown(tag)} behind data")
            elif tag in self._metadata:
                self._reader.refuse(f"has a second record {_shown(tag)}")
            else:
                self._metadata[tag] = self._metadatum(tag, length)
        since, name = (self._metadata.get(tag) for tag in (b"f", b"t"))
        return Contents(since, name, self._size(), self._pieces)  # type: ignore[arg-type]  # names are texts

    def _metadatum(self, tag: bytes, length: int | None) -> str | int:
        if tag in {b"f", b"t"}:
            name = self._name()
            self._check(tag, length, 4 + len(name.encode()))
            return name
        if tag == b"s":
            self._check(tag, length, 8)
            return self._reader.number(8)
        if length is None:
            self._reader.refuse(f"has an unknown record {_shown(tag)}")
        self._reader.leave_out(1 if (tag, length) == (b"p", 8) else length)
        return 0

    def _name(self) -> str:
        length = self._reader.number(4)
        if length > LONGEST_NAME:
            self._reader.refuse(f"names a snapshot by {length} bytes")
        try:
            name = self._reader.exactly(length).decode()
        except UnicodeDecodeError:
            name = ""
        if not name or not name.isprintable():
            self._reader.refuse("names a snapshot by what is no text")
        return name

    def _data(self, length: int | None, *, zeroes: bool) -> None:
        offset, count = self._reader.number(8), self._reader.number(8)
        size = self._size()
        self._check(b"z" if zeroes else b"w", length, 16 if zeroes else 16 + count)
        if offset < self._pieces.end:
            self._reader.refuse(f"has data of byte {offset} of the image behind that of byte {self._pieces.end}")
        if not count or offset + count > size:
            self._reader.refuse(f"has {count} bytes at {offset} of an image of {size} bytes")
        self._pieces.append(Piece(offset, count, ZEROES if zeroes else self._reader.position))
        if not zeroes:
            self._reader.leave_out(count)

    def _size(self) -> int:
        size = self._metadata.get(b"s")
        if not isinstance(size, int):
            self._reader.refuse("does not tell the image's size before its data")
        if size > LARGEST_IMAGE:
            self._reader.refuse(f"is of an image of {size} bytes, more than Ceph can have")
        return size

    def _check(self, tag: bytes, length: int | None, expected: int) -> None:
        if length is not None and length != expected:
            self._reader.refuse(f"has a record {_shown(tag)} of {length} bytes in place of {expected}")


def _shown(tag: bytes) -> str:
    return repr(tag.decode("latin-1"))
