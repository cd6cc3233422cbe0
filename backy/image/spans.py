"""Turns the extents of a snapshot into the chunks that a backup has to read."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backy.api import CHUNK_SIZE, Extent, chunk_count
from backy.errors import SourceError


class Span(NamedTuple):
    """The chunks from `start` to before `stop`. All have to be read, or all are zeroes."""

    start: int
    stop: int
    data: bool


def whole(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    """Yield `extents`, and check that they cover an image of `size` bytes.

    Raises:
        SourceError: there is a gap.
    """
    # Nobody would read or compare the bytes of a gap.
    end = 0
    for extent in extents:
        if extent.offset > end:
            break
        end = extent.end
        yield extent
    if end < size:
        raise SourceError(f"the source tells nothing of what lies behind byte {end} of its {size} bytes")


def spans(extents: Iterable[Extent], size: int) -> Iterator[Span]:
    """Turn ascending extents of an image of `size` bytes into ascending spans. No chunk is in two of them.

    A chunk is zero if one hole covers it from end to end. Every other chunk that an extent touches is read.

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
            # Two extents may touch one chunk: it is in the span of the first of them.
            if span.stop > done:
                yield Span(max(span.start, done), span.stop, span.data)
                done = span.stop


def _covered(extent: Extent, size: int) -> Iterator[Span]:
    """Yield the spans of the chunks that one extent touches. The inner chunks of a hole are zero."""
    start, stop = extent.offset // CHUNK_SIZE, chunk_count(extent.end)
    inner_start = chunk_count(extent.offset)
    # The image's last chunk may be short: a hole up to its end covers all of it.
    inner_stop = stop if extent.end == size else extent.end // CHUNK_SIZE
    parts = [(start, inner_start, True), (inner_start, inner_stop, False), (inner_stop, stop, True)]
    if extent.data or inner_start >= inner_stop:
        parts = [(start, stop, True)]
    yield from (Span(*part) for part in parts if part[0] < part[1])
