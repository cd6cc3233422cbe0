"""Reads a stream of `rbd` from a file or a pipe as an image that can be imported."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

from backy.api import CHUNK_SIZE, Extent, Image, Snapshot, SourceError, chunk_count
from backy.durable import pread_all
from backy.extents import joined
from backy_sources_ceph.diff_format import ZEROES, Contents, Piece, Reader, parse
from backy_sources_ceph.snapshot import filled

STANDARD_INPUT = 0


class StreamImport:
    """The image in a stream, as a `backy.api.Import`, and its snapshot."""

    def __init__(self, descriptor: int, contents: Contents, title: str) -> None:
        self.base = contents.since
        self.name = contents.name
        self.size = contents.size
        self._descriptor = descriptor
        self._pieces = contents.pieces
        self._title = title
        self._beneath: Image | None = None

    def snapshot(self, base: Image | None) -> Snapshot:
        """Return the image that the stream makes of `base`, which is the image of the snapshot `base`."""
        self._beneath = base
        return self

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes in order: a chunk is a hole if neither the stream nor the base has data in it."""
        has_data = bytearray(chunk_count(self.size))
        for extent in chain(self._beneath.extents() if self._beneath else (), self._parts()):
            # The image may have become smaller, so the base may have data beyond the new end.
            start, end = extent.offset // CHUNK_SIZE, chunk_count(min(extent.end, self.size))
            if extent.data and start < end:
                has_data[start:end] = b"\1" * (end - start)
        starts = enumerate(range(0, self.size, CHUNK_SIZE))
        return joined(Extent(at, min(CHUNK_SIZE, self.size - at), bool(has_data[index])) for index, at in starts)

    def changes(self) -> Iterator[Extent] | None:
        """Yield the ranges that differ from the base; None if the stream has all of the image."""
        if self._beneath is None:
            return None
        # A stream does not mention zeroes behind the old end, but the base does not have them.
        return filled(self._parts(), self._beneath.size, self.size)

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError if they can not be read."""
        if offset + length > self.size:
            raise SourceError(f"{self._title} is of an image of {self.size} bytes: there are no {length} at {offset}")
        data = bytearray(length)
        pieces = list(self._pieces.within(offset, offset + length))
        # The base may end within the range; behind its end there are zeroes. What is damaged there may be replaced.
        known = min(length, self._beneath.size - offset) if self._beneath else 0
        if self._beneath and known > 0 and sum(piece.length for piece in pieces) < length:
            data[:known] = self._beneath.pread(offset, known)
        for piece in pieces:
            data[piece.offset - offset : piece.end - offset] = self._read(piece)
        return bytes(data)

    def _parts(self) -> Iterator[Extent]:
        return (Extent(piece.offset, piece.length, data=piece.place != ZEROES) for piece in self._pieces)

    def _read(self, piece: Piece) -> bytes:
        if piece.place == ZEROES:
            return bytes(piece.length)
        data = pread_all(self._descriptor, piece.length, piece.place)
        if len(data) < piece.length:
            raise SourceError(f"{self._title} became shorter while it was read")
        return data


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
