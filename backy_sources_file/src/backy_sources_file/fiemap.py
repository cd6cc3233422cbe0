"""Compares two files by their extents, as the file system tells them."""

import hashlib
import os
import struct
from collections import deque
from collections.abc import Iterator
from itertools import chain
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
    before, after = hashlib.blake2b(), hashlib.blake2b()
    first_look = _noted(old, before)
    found = list(differences(first_look, os.fstat(old).st_size, mapped(new), os.fstat(new).st_size))
    # If the old extents did not move, no address changed its meaning while the new ones were read.
    deque(chain(first_look, _noted(old, after)), maxlen=0)
    if before.digest() != after.digest():
        raise MovedError
    return found


def _noted(descriptor: int, digest: hashlib.blake2b) -> Iterator[Mapped]:
    """Yield the extents of a file, and have a digest of them without the flags that have no meaning."""
    for extent in mapped(descriptor):
        digest.update(_SEEN.pack(extent.offset, extent.physical, extent.length, extent.flags & ~MEANINGLESS))
        yield extent
