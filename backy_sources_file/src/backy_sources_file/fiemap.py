"""The extents of files as their file system tells them: ioctl FS_IOC_FIEMAP, described in linux/fiemap.h."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from typing import Final

from backy.api import Extent
from backy_sources_file.comparison import MEANINGLESS, Mapped, differences

_FIEMAP: Final = 0xC020660B
_HEADER: Final = struct.Struct("=QQIIII")
"""struct fiemap: start, length, flags, mapped extents, room for extents, reserved."""
_EXTENT: Final = struct.Struct("=QQQ16xI12x")
"""struct fiemap_extent: logical offset, physical offset, length, flags."""
_SYNC: Final = 1
_ROOM: Final = 2048
"""Extents that are asked for at a time."""
_END: Final = 2**64 - 1


class MovedError(Exception):
    """Extents were moved while they were looked at, as a balance or a defragmentation does."""


def changes(old: int, new: int) -> list[Extent]:
    """Return what of the frozen file `new` may differ from the frozen file `old`; both are descriptors.

    The old extents are looked at before and after the new ones. If they are where they were, each address meant one
    thing all that time.

    Raises:
        MovedError: they are not.
        OSError: the file system does not tell.
        ValueError: it tells nonsense.
    """
    before = _Watched(old)
    found = list(differences(before, os.fstat(old).st_size, extents(new), os.fstat(new).st_size))
    if before.digest() != _Watched(old).digest():
        raise MovedError
    return found


def extents(descriptor: int) -> Iterator[Mapped]:
    """Yield the extents of a file in order, what is allocated beyond its end included.

    Raises:
        OSError: the file system does not tell.
        ValueError: it tells nonsense.
    """
    start = 0
    buffer = bytearray(_HEADER.size + _ROOM * _EXTENT.size)
    while True:
        _HEADER.pack_into(buffer, 0, start, _END - start, _SYNC, 0, _ROOM, 0)
        fcntl.ioctl(descriptor, _FIEMAP, buffer)
        count = _HEADER.unpack_from(buffer)[3]
        if not count:
            return
        for offset, physical, length, flags in _EXTENT.iter_unpack(buffer[_HEADER.size :][: count * _EXTENT.size]):
            if offset < start or not length:
                raise ValueError(f"an extent of {length} bytes at {offset} where one at {start} was asked for")
            yield Mapped(offset, length, physical, flags)
            start = offset + length


class _Watched(Iterator[Mapped]):
    """The extents of a file, and a digest of all that is said of them but what has no meaning."""

    def __init__(self, descriptor: int) -> None:
        self._extents = extents(descriptor)
        self._digest = hashlib.blake2b()

    def __next__(self) -> Mapped:
        extent = next(self._extents)
        self._digest.update(_EXTENT.pack(extent.offset, extent.physical, extent.length, extent.flags & ~MEANINGLESS))
        return extent

    def digest(self) -> bytes:
        """Look at the rest of the extents, too, and return the digest."""
        for _ in self:
            pass
        return self._digest.digest()
