"""How much space a repository takes on the disk."""

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from backy.durable import open_regular

_FIEMAP = 0xC020660B
_HEADER = struct.Struct("=QQIIII")
"""struct fiemap of linux/fiemap.h: start, length, flags, extents that were found, capacity for them, reserved."""
_EXTENT = struct.Struct("=QQQ32x")
"""struct fiemap_extent: offset in the file, offset on the disk, length."""
_CAPACITY = 2048
# FIEMAP_FLAG_SYNC: data that is only in memory has no address yet.
_SYNC = 1


def occupied(directory: Path) -> int:
    """Return the bytes that all files below `directory` take on the disk. Blocks that raw images share count once."""
    size = 0
    shared: list[tuple[int, int]] = []
    for folder, _, names, descriptor in os.fwalk(directory):
        for name in names:
            try:
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed since it was listed
            try:
                # Only raw images share blocks, and their names are ids. `du` would count each of them in full.
                if folder == os.fspath(directory) and "." not in name and found.st_blocks:
                    shared = list(_joined(sorted([*shared, *_blocks(directory / name)])))
                    continue
            except OSError:
                pass  # this file system does not tell, and so it shares no blocks either
            size += found.st_blocks * 512
    return size + sum(end - start for start, end in shared)


def _blocks(path: Path) -> Iterator[tuple[int, int]]:
    """Yield where the blocks of a file are on the disk: the first byte of a run of them, and the one after the last."""
    start, buffer = 0, bytearray(_HEADER.size + _CAPACITY * _EXTENT.size)
    with os.fdopen(open_regular(path), "rb", buffering=0) as stream:
        while True:
            _HEADER.pack_into(buffer, 0, start, 2**64 - 1 - start, _SYNC, 0, _CAPACITY, 0)
            fcntl.ioctl(stream, _FIEMAP, buffer)
            count = _HEADER.unpack_from(buffer)[3]
            if not count:
                return
            for offset, physical, length in _EXTENT.iter_unpack(buffer[_HEADER.size :][: count * _EXTENT.size]):
                yield physical, physical + length
                start = offset + length


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join ranges, given ascending, that touch or overlap."""
    first = last = 0
    for start, end in ranges:
        if start > last:
            yield first, last
            first = start
        last = max(last, end)
    yield first, last
