"""Large writes past the page cache, see O_DIRECT in open(2).

Data that is written once and not read again soon only displaces what others need in the cache, and filling new pages of
the cache can take longer than the disk does. So large pieces go straight to the disk where the file system allows it.
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
"""Bytes. Memory, offsets and lengths must be multiples of a device's logical block, which is no larger (statx(2))."""
SMALLEST = 128 * 1024
"""Bytes. Smaller pieces are left to the cache, which writes many of them to the disk at once."""
_BUFFER_SIZE = 4 * 1024 * 1024


class DirectWriter:
    """Writes to files from aligned buffers, one per thread."""

    def __init__(self) -> None:
        self._local = threading.local()

    def pwrite(self, direct: int | None, data: bytes, offset: int) -> int:
        """Write the beginning of `data` at `offset` through `direct`, a descriptor with O_DIRECT.

        Return how many bytes were written. The caller writes the rest through an ordinary descriptor: an odd end at
        least, and everything if `direct` is None, `data` is short, or the file system refuses.
        """
        if direct is None or len(data) < SMALLEST or offset % ALIGNMENT:
            return 0
        # The bytes of the caller are aligned by chance at best: mmap is what gives aligned memory in Python.
        buffer = self._buffer()
        length = min(len(data) // ALIGNMENT * ALIGNMENT, len(buffer))
        buffer[:length] = memoryview(data)[:length]
        try:
            return os.pwrite(direct, buffer[:length], offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return 0  # some file systems open with O_DIRECT and refuse only the write

    def _buffer(self) -> memoryview:
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = memoryview(mmap.mmap(-1, _BUFFER_SIZE))
        return buffer


@contextmanager
def reopened(descriptor: int) -> Iterator[int | None]:
    """Open the file of `descriptor` again with O_DIRECT; yield None if its file system does not support that."""
    # A second description of the file: O_DIRECT on the first would hold for its unaligned end as well.
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
    """Set O_DIRECT on a descriptor that only this thread uses; yield None if its file system does not support that."""
    # Unlike opening it again this needs no permission: a new file may be read-only already.
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
