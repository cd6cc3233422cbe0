"""Compares two files by their extents, as the file system tells them."""

import hashlib
import os
import struct
from collections.abc import Iterator
from typing import Final

from backy.api import Extent
from backy.extents import Mapped, mapped
from backy_sources_file.comparison import MEANINGLESS, differences

_SEEN: Final = struct.Struct("=QQQI")
"""What the digest has of an extent."""


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
    found = list(differences(first_look, os.fstat(old).st_size, mapped(new), os.fstat(new).st_size))
    # If the old extents did not move, no address changed its meaning while the new ones were read.
    if first_look.digest() != _Watched(old).digest():
        raise MovedError
    return found


class _Watched(Iterator[Mapped]):
    """The extents of a file, and a digest of them without the flags that have no meaning."""

    def __init__(self, descriptor: int) -> None:
        self._extents = mapped(descriptor)
        self._digest = hashlib.blake2b()

    def __next__(self) -> Mapped:
        extent = next(self._extents)
        self._digest.update(_SEEN.pack(extent.offset, extent.physical, extent.length, extent.flags & ~MEANINGLESS))
        return extent

    def digest(self) -> bytes:
        """Read the remaining extents and return the digest of all."""
        for _ in self:
            pass
        return self._digest.digest()
