"""Reads what the kernel's dm-log-writes has written: the writes to a disk in the order in which they were done.

The format is that of drivers/md/dm-log-writes.c: a super block, then entries of a sector each, each with its data
behind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MAGIC = 0x6A736677736872
SUPER = struct.Struct("<QQQI")
"""Magic, version, number of entries, bytes of a sector."""
ENTRY = struct.Struct("<QQQQ")
"""First sector, number of sectors, flags, bytes of a mark."""
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


class Write(NamedTuple):
    """A write, or a mark between writes."""

    offset: int
    data: bytes
    is_durable: bool
    """Whether all that was done before, and this, survives a power loss from here on."""
    mark: str


def read(log: BinaryIO) -> Iterator[Write]:
    """Yield the writes of a log.

    Raises:
        ValueError: it is no such log, or it is cut off.
    """
    magic, version, count, sector = SUPER.unpack(_exactly(log, SUPER.size))
    if (magic, version) != (MAGIC, 1):
        raise ValueError("this is no log of writes")
    position = sector
    for _ in range(count):
        log.seek(position)
        head = _exactly(log, sector)
        first, sectors, flags, length = ENTRY.unpack_from(head)
        position += sector
        data = b""
        if not flags & DISCARD and sectors:
            data = _exactly(log, sectors * sector)
            position += len(data)
        mark = head[ENTRY.size : ENTRY.size + length].rstrip(b"\0").decode() if flags & MARK else ""
        yield Write(first * sector, data, bool(flags & (FLUSH | FUA)), mark)


def _exactly(log: BinaryIO, length: int) -> bytes:
    data = log.read(length)
    if len(data) != length:
        raise ValueError("the log is cut off")
    return data
