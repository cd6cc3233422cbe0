"""What differs between two files, told by where their extents lie on the disk.

Both files must be frozen: each then pins its blocks, and an address that both have at one place is the same data. That
holds for extents of which the address tells everything. Of all others nothing is known, so they count as changed: an
extent that is compressed (its address leaves out where in it the data begins), inline, or not allocated yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

from backy.api import Extent

LAST: Final = 0x1
UNWRITTEN: Final = 0x800
SHARED: Final = 0x2000
MEANINGLESS: Final = LAST | SHARED
"""Flags of linux/fiemap.h that say nothing about an extent's content."""
_SECTOR: Final = 512


class Mapped(NamedTuple):
    """An extent of a file and where it lies on the disk; what no extent covers is a hole."""

    offset: int
    length: int
    physical: int
    flags: int


Content = int | Literal["zeroes", "unknown"]
"""What is in a stretch of a file: data, told by the distance from offset to address; zeroes; or nobody knows."""


def differences(old: Iterable[Mapped], old_size: int, new: Iterable[Mapped], new_size: int) -> Iterator[Extent]:
    """Yield, in order, what of `new` may differ from `old`; holes are what reads as zeroes in `new`.

    All that lies beyond the end of `old` differs.

    Raises:
        ValueError: extents overlap or are out of order.
    """
    pending: Extent | None = None
    start = 0
    pairs = _side_by_side(_stretches(old, old_size, new_size), _stretches(new, new_size, new_size), new_size)
    for end, before, now in pairs:
        if now == "unknown" or before != now:
            data = now != "zeroes"
            if pending is not None and (pending.end, pending.data) == (start, data):
                pending = Extent(pending.offset, end - pending.offset, data)
            else:
                if pending is not None:
                    yield pending
                pending = Extent(start, end - start, data)
        start = end
    if pending is not None:
        yield pending


def _side_by_side(
    old: Iterator[tuple[int, Content]], new: Iterator[tuple[int, Content]], end: int
) -> Iterator[tuple[int, Content, Content]]:
    """Cut the stretches of both where either has a border, and yield where each piece ends and what is in it."""
    position = old_end = new_end = 0
    before: Content = "unknown"
    now: Content = "unknown"
    while position < end:
        if old_end == position:
            old_end, before = next(old)
        if new_end == position:
            new_end, now = next(new)
        position = min(old_end, new_end)
        yield position, before, now


def _stretches(extents: Iterable[Mapped], size: int, end: int) -> Iterator[tuple[int, Content]]:
    """Yield where each stretch of a file of `size` bytes ends and what is in it, without gaps up to `end`."""
    position = 0
    limit = min(size, end)
    for extent in extents:
        if extent.offset < position or extent.length <= 0:
            raise ValueError(f"an extent of {extent.length} bytes at {extent.offset} follows what ends at {position}")
        if extent.offset >= limit:
            break  # space may be allocated beyond the end
        if extent.offset > position:
            yield extent.offset, "zeroes"
        position = extent.offset + extent.length
        yield min(position, limit), _content(extent)
    if position < limit:
        yield limit, "zeroes"
    if limit < end:
        yield end, "unknown"


def _content(extent: Mapped) -> Content:
    flags = extent.flags & ~MEANINGLESS
    if flags == UNWRITTEN:
        return "zeroes"
    if flags or (extent.offset | extent.length | extent.physical) % _SECTOR:
        return "unknown"
    return extent.physical - extent.offset
