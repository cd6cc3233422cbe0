"""Reads a stream of `rbd` from a file or a pipe as an image that can be imported."""

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from backy.api import Extent, Image, Snapshot, SourceError
from backy.durable import pread_all
from backy_sources_ceph.diff_format import ZEROES, Contents, Piece, Reader, overlaid, parse

STANDARD_INPUT = 0
_BASE = -2
"""The place of a piece that the stream does not have: it is in the image that the stream starts from."""


class StreamImport:
    """The image in a stream, as a `backy.api.Import`."""

    def __init__(self, descriptor: int, contents: Contents, title: str) -> None:
        self.base = contents.since
        self.name = contents.name
        self._descriptor = descriptor
        self._contents = contents
        self._title = title

    def snapshot(self, base: Image | None) -> Snapshot:
        """Return the image that the stream makes of `base`, which is the image of the snapshot `base`."""
        return StreamSnapshot(self._descriptor, self._contents, base, self._title)


class StreamSnapshot:
    """An image made of a stream and of the image that the stream starts from."""

    def __init__(self, descriptor: int, contents: Contents, base: Image | None, name: str) -> None:
        self.size = contents.size
        self._descriptor = descriptor
        self._pieces = contents.pieces
        self._base = base
        self._name = name

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes in order."""
        base = self._base.extents() if self._base else ()
        # The image may have become smaller, so data of the base beyond the new end is left out.
        kept = (
            Piece(extent.offset, min(extent.end, self.size) - extent.offset, _BASE)
            for extent in base
            if extent.data and extent.offset < self.size
        )
        return _extents(overlaid(_zeroes(0, self.size), overlaid(kept, self._pieces)))

    def changes(self) -> Iterator[Extent] | None:
        """Yield the ranges that differ from the base; None if the stream has all of the image."""
        if self._base is None:
            return None
        # A stream does not mention zeroes behind the old end, but the base does not have them.
        return _extents(overlaid(_zeroes(self._base.size, self.size), self._pieces))

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError if they can not be read."""
        if offset + length > self.size:
            raise SourceError(f"{self._name} is of an image of {self.size} bytes: there are no {length} at {offset}")
        beneath = Piece(offset, length, _BASE)
        return b"".join(
            self._read(piece) for piece in overlaid([beneath], self._pieces.within(offset, offset + length))
        )

    def _read(self, piece: Piece) -> bytes:
        if piece.place == _BASE and self._base is not None and piece.offset < self._base.size:
            # The base may end within the piece; behind its end there are zeroes.
            end = min(piece.end, self._base.size)
            return self._base.pread(piece.offset, end - piece.offset).ljust(piece.length, b"\0")
        if piece.place < 0:
            return bytes(piece.length)
        data = pread_all(self._descriptor, piece.length, piece.place)
        if len(data) < piece.length:
            raise SourceError(f"{self._name} became shorter while it was read")
        return data


def _zeroes(start: int, end: int) -> list[Piece]:
    return [Piece(start, end - start, ZEROES)] if start < end else []


def _extents(pieces: Iterable[Piece]) -> Iterator[Extent]:
    return (Extent(piece.offset, piece.length, data=piece.place != ZEROES) for piece in pieces)


@contextmanager
def opened_stream(path: str, folder: Path) -> Iterator[StreamImport]:
    """Open a stream from a file, or from standard input if `path` is "-", and check all of it.

    The content of a pipe is kept in a temporary file in `folder`.

    Raises:
        SourceError: the stream can not be read or is not sound.
    """
    name = "standard input" if path == "-" else path
    with ExitStack() as stack:
        try:
            # A duplicate, because standard input must stay open when this stream is closed.
            descriptor = os.dup(STANDARD_INPUT) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            given = stack.enter_context(os.fdopen(descriptor, "rb"))
            # Only a file can be read again later, so anything else is copied on the way.
            if stat.S_ISREG(os.fstat(given.fileno()).st_mode):
                contents = parse(Reader(given, name))
            else:
                kept = stack.enter_context(tempfile.TemporaryFile(dir=folder))
                descriptor, contents = kept.fileno(), parse(Reader(given, name, kept))
                kept.flush()
        except OSError as error:
            raise SourceError(f"{name}: {error.strerror}") from error
        yield StreamImport(descriptor, contents, name)
