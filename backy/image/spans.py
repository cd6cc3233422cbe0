"""Which chunks a backup has to look at, told by the extents of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backy.api import CHUNK_SIZE, Extent, chunk_count
from backy.errors import SourceError


class Span(NamedTuple):
    """The chunks from `start` to before `stop`: all to be read, or all zeroes."""

    start: int
    stop: int
    data: bool


def whole(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    """Hand on the extents of all of an image, making sure that nothing is left out: it would never be looked at.

    Raises:
        SourceError: there is a gap.
    """
    end = 0
    for extent in extents:
        if extent.offset > end:
            break
        end = extent.end
        yield extent
    if end < size:
        raise SourceError(f"the source tells nothing of what lies behind byte {end} of its {size} bytes")


def spans(extents: Iterable[Extent], size: int) -> Iterator[Span]:
    """Turn ascending extents of an image of `size` bytes into ascending spans; no chunk is in two of them.

    A chunk that any data extent touches is read once; so is one that holes cover only in part, for what the extents
    leave out may hold data. A chunk that holes cover from end to end is zero.

    Raises:
        SourceError: the extents overlap, are out of order, or reach beyond the image.
    """
    done = 0
    end = 0
    for extent in extents:
        if extent.offset < end or extent.length <= 0 or extent.end > size:
            raise SourceError(f"the source reports an impossible extent: {extent} after {end}, image of {size} bytes")
        end = extent.end
        for span in _covered(extent, size):
            if span.stop > done:
                yield Span(max(span.start, done), span.stop, span.data)
                done = span.stop


def _covered(extent: Extent, size: int) -> Iterator[Span]:
    """Yield what one extent says of the chunks it touches: the inner chunks of a hole are zero, the rest is read."""
    start, stop = extent.offset // CHUNK_SIZE, chunk_count(extent.end)
    inner_start = chunk_count(extent.offset)
    inner_stop = stop if extent.end == size else extent.end // CHUNK_SIZE
    if extent.data or inner_start >= inner_stop:
        yield Span(start, stop, data=True)
        return
    if start < inner_start:
        yield Span(start, inner_start, data=True)
    yield Span(inner_start, inner_stop, data=False)
    if inner_stop < stop:
        yield Span(inner_stop, stop, data=True)
