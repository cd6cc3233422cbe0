"""Writes large pieces past the page cache, where the file system supports O_DIRECT of open(2).

Data that is not read again soon would displace data in the cache that others need. Filling new pages of the cache can
also take longer than the disk does.
"""

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ALIGNMENT = 4096
"""Bytes that memory, offsets and lengths must be multiples of. No logical block of a device is larger (statx(2))."""
SMALLEST = 128 * 1024
"""Bytes of the smallest piece that is written directly. The cache writes many smaller ones to the disk at once."""
_BUFFER_SIZE = 4 * 1024 * 1024


class DirectWriter(threading.local):
    """Writes to files from an aligned buffer, another one in each thread."""

    # Python calls this again in each thread that uses the object.
    def __init__(self) -> None:
        # The bytes of callers are aligned by chance at best: mmap is what gives aligned memory in Python.
        self._buffer = memoryview(mmap.mmap(-1, _BUFFER_SIZE))

    def pwrite(self, direct: int | None, data: bytes, offset: int) -> int:
        """Write the beginning of `data` at `offset` through `direct`, a descriptor with O_DIRECT or None.

        Return how many bytes were written. The caller writes the rest through an ordinary descriptor. That is an
        unaligned end, or everything if `direct` is None, `data` is short, or the file system refuses.
        """
        if direct is None or len(data) < SMALLEST or offset % ALIGNMENT:
            return 0
        length = min(len(data) // ALIGNMENT * ALIGNMENT, _BUFFER_SIZE)
        self._buffer[:length] = memoryview(data)[:length]
        try:
            return os.pwrite(direct, self._buffer[:length], offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return 0  # Some file systems accept O_DIRECT and refuse the write.


@contextmanager
def reopened(descriptor: int) -> Iterator[int | None]:
    """Open the file of `descriptor` again with O_DIRECT; yield None if that is not supported."""
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
    """Set O_DIRECT on a descriptor that only this thread uses; yield None if that is not supported."""
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
