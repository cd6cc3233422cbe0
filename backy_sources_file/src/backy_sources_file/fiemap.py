"""Compares two files by their extents, as the file system tells them.

Both files must be frozen. Each then holds on to its blocks, so the same address at the same offset is the same data.
An extent counts as changed if its address does not tell everything: it is compressed (the address leaves out where in
the extent the data begins), inline, or not allocated yet.
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, Literal

from backy.api import Extent
from backy.extents import SHARED, Mapped, joined, mapped

LAST: Final = 0x1
UNWRITTEN: Final = 0x800
MEANINGLESS: Final = LAST | SHARED
"""Flags of linux/fiemap.h that say nothing about an extent's content."""
_SECTOR: Final = 512
"""Bytes of the smallest unit that a disk has an address for."""
Content = int | Literal["zeroes", "unknown"]
"""Content of a stretch of a file. Data is named by its address minus its offset, which a stretch has throughout."""
_UNKNOWN: Final[Content] = "unknown"
Stretch = tuple[int, Content]
"""The end of a stretch, and its content."""


def differences(old: Iterable[Mapped], old_size: int, new: Iterable[Mapped], new_size: int) -> Iterator[Extent]:
    """Yield, in ascending order, the ranges of `new` that may differ from `old`.

    Ranges of `new` that read as zeroes are yielded as holes. Everything beyond the end of `old` differs.

    Raises:
        ValueError: extents overlap or are out of order.
    """
    return joined(_differing(_stretches(old, old_size, new_size), _stretches(new, new_size, new_size), new_size))


def _differing(old: Iterator[Stretch], new: Iterator[Stretch], end: int) -> Iterator[Extent]:
    """Cut the stretches of both files at every border of either; yield the pieces that may differ."""
    position = old_end = new_end = 0
    previous = now = _UNKNOWN
    while position < end:
        if old_end == position:
            old_end, previous = next(old)
        if new_end == position:
            new_end, now = next(new)
        start, position = position, min(old_end, new_end)
        # Two unknown contents may differ, although they compare as equal.
        if now == _UNKNOWN or previous != now:
            yield Extent(start, position - start, data=now != "zeroes")


def _stretches(extents: Iterable[Mapped], size: int, end: int) -> Iterator[Stretch]:
    """Yield the end and the content of each stretch of a file of `size` bytes, without gaps up to `end`."""
    # Whatever `old` has beyond the end of `new` is of no interest.
    position = 0
    limit = min(size, end)
    for extent in extents:
        if extent.offset < position or extent.length <= 0:
            raise ValueError(f"an extent of {extent.length} bytes at {extent.offset} follows what ends at {position}")
        if extent.offset >= limit:
            break  # a file system may allocate space beyond the end
        if extent.offset > position:
            yield extent.offset, "zeroes"
        position = extent.offset + extent.length
        yield min(position, limit), _content(extent)
    if position < limit:
        yield limit, "zeroes"
    if limit < end:
        yield end, _UNKNOWN


def _content(extent: Mapped) -> Content:
    flags = extent.flags & ~MEANINGLESS
    if flags == UNWRITTEN:
        return "zeroes"
    # Any other flag, or an odd address, means that the address does not tell where the data is.
    if flags or (extent.offset | extent.length | extent.physical) % _SECTOR:
        return _UNKNOWN
    return extent.physical - extent.offset


def changes(old: int, new: int) -> list[Extent]:
    """Return the ranges of the frozen file `new` that may differ from the frozen file `old`; both are descriptors.

    Raises:
        OSError: the file system does not tell the extents.
        ValueError: it returned extents that can not be, or a balance or a defragmentation moved those of `old`.
    """
    before, after = hashlib.blake2b(), hashlib.blake2b()
    first_look = _noted(old, before)
    found = list(differences(first_look, os.fstat(old).st_size, mapped(new), os.fstat(new).st_size))
    # If the old extents did not move, no address changed its meaning while the new ones were read.
    deque(chain(first_look, _noted(old, after)), maxlen=0)
    if before.digest() != after.digest():
        raise ValueError("its extents are being moved")
    return found


def _noted(descriptor: int, digest: hashlib.blake2b) -> Iterator[Mapped]:
    """Yield the extents of a file, and have a digest of them without the flags that have no meaning."""
    for extent in mapped(descriptor):
        digest.update(repr(extent._replace(flags=extent.flags & ~MEANINGLESS)).encode())
        yield extent
