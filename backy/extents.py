"""Joins extents, fills gaps between them, and asks the file system for those of a file. Plugins may use it."""

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from backy.api import Extent
from backy.durable import closed_at_end, open_regular

_FIEMAP: Final = 0xC020660B  # FS_IOC_FIEMAP of linux/fs.h, described in linux/fiemap.h
_HEADER: Final = struct.Struct("=QQIIII")
"""struct fiemap: start, length, flags, mapped extents, capacity for extents, reserved."""
_EXTENT: Final = struct.Struct("=QQQ16xI12x")
"""struct fiemap_extent: logical offset, physical offset, length, flags."""
SHARED: Final = 0x2000
"""Flag of an extent that other files have, too, or the same file elsewhere: FIEMAP_EXTENT_SHARED of linux/fiemap.h."""
# FIEMAP_FLAG_SYNC: data that is only in memory has no address yet.
_SYNC: Final = 1
_END: Final = 2**64 - 1


class Mapped(NamedTuple):
    """An extent of a file and its address on the disk. Ranges without an extent are holes."""

    offset: int
    length: int
    physical: int
    flags: int


def joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join extents of one kind, data or holes, that follow each other without a gap."""
    # One extent is held back, because the next one may continue it.
    last: Extent | None = None
    for extent in extents:
        if last is not None and last.end == extent.offset and last.data == extent.data:
            last = last._replace(length=last.length + extent.length)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last


def filled(extents: Iterable[Extent], start: int, stop: int, *, data: bool = False) -> Iterator[Extent]:
    """Yield ascending extents, with one more for each gap between `start` and `stop`: a hole, unless that is `data`."""
    # Of changes, these are the old end and the new one: what an image has grown by may be told by nobody.
    position = start
    for extent in extents:
        if extent.offset > position:
            yield Extent(position, extent.offset - position, data)
        position = max(position, extent.end)
        yield extent
    if position < stop:
        yield Extent(position, stop - position, data)


def mapped(descriptor: int, capacity: int = 2048) -> Iterator[Mapped]:
    """Yield the extents of a file in order, with those that are allocated beyond its end; `capacity` at a time.

    Raises:
        OSError: the file system does not tell the extents.
        ValueError: the file system returned extents that can not be.
    """
    start = 0
    buffer = bytearray(_HEADER.size + capacity * _EXTENT.size)
    while True:
        _HEADER.pack_into(buffer, 0, start, _END - start, _SYNC, 0, capacity, 0)
        fcntl.ioctl(descriptor, _FIEMAP, buffer)
        count = _HEADER.unpack_from(buffer)[3]
        if not count:
            return
        for offset, physical, length, flags in _EXTENT.iter_unpack(buffer[_HEADER.size :][: count * _EXTENT.size]):
            # Without progress this loop would never end.
            if offset < start or not length:
                raise ValueError(f"an extent of {length} bytes at {offset} where one at {start} was asked for")
            yield Mapped(offset, length, physical, flags)
            start = offset + length


def is_shared(path: Path | str) -> bool:
    """Return whether any other file shares blocks with this one, or is the same one, as far as is known."""
    with closed_at_end(open_regular(path)) as descriptor, suppress(OSError, ValueError):
        return os.fstat(descriptor).st_nlink > 1 or any(one.flags & SHARED for one in mapped(descriptor, 16))
    return False
