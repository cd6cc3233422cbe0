"""Maps ranges of an image to places in a stream: ascending pieces, which take 24 bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

ZEROES: Final = -1
"""The place of a piece that reads as zeroes."""


class Piece(NamedTuple):
    """A range of an image and the place of its data."""

    offset: int
    length: int
    place: int
    """The byte of the stream where the data begins; negative if the data is not in the stream."""

    @property
    def end(self) -> int:
        """The first byte after the piece."""
        return self.offset + self.length

    def part(self, start: int, end: int) -> Piece:
        """Return the part from `start` to before `end`, both inside of the piece."""
        return Piece(start, end - start, self.place if self.place < 0 else self.place + start - self.offset)


class Pieces:
    """Pieces in ascending order without overlaps."""

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        # Arrays instead of a list of tuples, which would take several times the memory.
        self._offsets = array("q")
        self._lengths = array("q")
        self._places = array("q")
        for piece in pieces:
            self.append(piece)

    def append(self, piece: Piece) -> None:
        """Add a piece behind all others."""
        self._offsets.append(piece.offset)
        self._lengths.append(piece.length)
        self._places.append(piece.place)

    def __len__(self) -> int:
        return len(self._offsets)

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
                yield piece.part(max(piece.offset, start), min(piece.end, end))


def overlaid(lower: Iterable[Piece], upper: Iterable[Piece]) -> Iterator[Piece]:
    """Yield, in order, all pieces of `upper` and the parts of `lower` that they do not cover."""
    rest = iter(lower)
    below = next(rest, None)
    for above in upper:
        while below and below.offset < above.offset:
            yield below.part(below.offset, min(below.end, above.offset))
            below = below.part(above.offset, below.end) if below.end > above.offset else next(rest, None)
        # What is left now begins under the upper piece: skip it up to the end of that.
        while below and below.offset < above.end:
            below = below.part(above.end, below.end) if below.end > above.end else next(rest, None)
        yield above
    while below:
        yield below
        below = next(rest, None)
