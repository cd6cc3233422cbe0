"""Large writes past the page cache, see O_DIRECT in open(2).

What is written once and not read again soon only drives out of memory what others need, and filling new pages of the
cache can take longer than the disk does. So large pieces go straight to the disk, where the file system lets them.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ALIGNMENT = 4096
"""Memory, offsets and lengths have to be multiples of a device's logical block, which is this at most (statx(2))."""
SMALLEST = 128 * 1024
"""Smaller pieces are left to the cache, which brings many of them to the disk at once."""
_ROOM = 4 * 1024 * 1024


class DirectWriter:
    """Writes to files by way of aligned memory, of which each thread has its own."""

    def __init__(self) -> None:
        self._local = threading.local()

    def pwrite(self, direct: int | None, data: bytes, offset: int) -> int:
        """Write the beginning of `data` at `offset` by a descriptor with O_DIRECT, which takes whole blocks only.

        Returns how many bytes that were; the rest, an odd end at least, is left to an ordinary descriptor. It is all if
        there is no direct one, if there is little to write, or if the file system does not want it so.
        """
        if direct is None or len(data) < SMALLEST or offset % ALIGNMENT:
            return 0
        room = self._room()
        length = min(len(data) // ALIGNMENT * ALIGNMENT, len(room))
        room[:length] = memoryview(data)[:length]
        try:
            return os.pwrite(direct, room[:length], offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return 0  # some file systems only tell now

    def _room(self) -> memoryview:
        room: memoryview | None = getattr(self._local, "room", None)
        if room is None:
            room = self._local.room = memoryview(mmap.mmap(-1, _ROOM))
        return room


@contextmanager
def reopened(descriptor: int) -> Iterator[int | None]:
    """Open a file once more, with O_DIRECT; None if its file system has no such thing."""
    try:
        direct = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield direct
    finally:
        os.close(direct)


@contextmanager
def switched(descriptor: int) -> Iterator[int | None]:
    """Give O_DIRECT to a descriptor of one thread alone for a while; None if its file system has no such thing.

    Unlike `reopened` it asks for no permission: a new file may be read-only already.
    """
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
