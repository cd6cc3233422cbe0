"""Asks the file system for the extents of files: ioctl FS_IOC_FIEMAP, described in linux/fiemap.h."""

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from typing import Final

from backy.api import Extent
from backy_sources_file.comparison import MEANINGLESS, Mapped, differences

_FIEMAP: Final = 0xC020660B  # FS_IOC_FIEMAP of linux/fs.h
_HEADER: Final = struct.Struct("=QQIIII")
"""struct fiemap: start, length, flags, mapped extents, capacity for extents, reserved."""
_EXTENT: Final = struct.Struct("=QQQ16xI12x")
"""struct fiemap_extent: logical offset, physical offset, length, flags."""
# FIEMAP_FLAG_SYNC: data that is only in memory has no address yet.
_SYNC: Final = 1
_CAPACITY: Final = 2048
"""Extents that one call can return."""
_END: Final = 2**64 - 1


class MovedError(Exception):
    """A balance or a defragmentation moved extents during the comparison."""


def changes(old: int, new: int) -> list[Extent]:
    """Return the ranges of the frozen file `new` that may differ from the frozen file `old`; both are descriptors.

    Raises:
        MovedError: extents of `old` were moved meanwhile.
        OSError: the file system does not tell the extents.
        ValueError: the file system returned extents that can not be.
    """
    first_look = _Watched(old)
    found = list(differences(first_look, os.fstat(old).st_size, extents(new), os.fstat(new).st_size))
    # If the old extents did not move, no address changed its meaning while the new ones were read.
    if first_look.digest() != _Watched(old).digest():
        raise MovedError
    return found


def extents(descriptor: int) -> Iterator[Mapped]:
    """Yield the extents of a file in order, with those that are allocated beyond its end.

    Raises:
        OSError: the file system does not tell the extents.
        ValueError: the file system returned extents that can not be.
    """
    start = 0
    buffer = bytearray(_HEADER.size + _CAPACITY * _EXTENT.size)
    while True:
        _HEADER.pack_into(buffer, 0, start, _END - start, _SYNC, 0, _CAPACITY, 0)
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


class _Watched(Iterator[Mapped]):
    """The extents of a file, and a digest of them without the flags that have no meaning."""

    def __init__(self, descriptor: int) -> None:
        self._extents = extents(descriptor)
        self._digest = hashlib.blake2b()

    def __next__(self) -> Mapped:
        extent = next(self._extents)
        self._digest.update(_EXTENT.pack(extent.offset, extent.physical, extent.length, extent.flags & ~MEANINGLESS))
        return extent

    def digest(self) -> bytes:
        """Read the remaining extents and return the digest of all."""
        for _ in self:
            pass
        return self._digest.digest()
