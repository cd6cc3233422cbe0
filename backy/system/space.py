"""How much space a disk has left, and a reserve for commands that free some."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backy.durable import closed_at_end, sync_file_system_of

RESERVE = ".reserve"
"""Name of the file whose space is given up when the disk is full."""

_LEAST = 64 * 1024
"""Bytes below which a reserve is of no use."""
_MARGIN = 16 * 2**20
"""Bytes that a file system may say are free, and give to nobody: btrfs needs some for its own notes."""


def is_short(directory: Path) -> bool:
    """Tell whether less than a twentieth of the disk is free, of what is not reserved for root."""
    found = os.statvfs(directory)
    return found.f_bavail * 20 < found.f_blocks


@contextmanager
def reserve(directory: Path, size: int, *, spend: bool) -> Iterator[None]:
    """Have a file of `size` bytes before and after a command, unless the disk is full.

    If `spend` is true, and little more than that is left, the command has the space of the file.
    """
    path = directory / RESERVE
    space = os.statvfs(directory)
    if spend and space.f_bavail * space.f_frsize < size + _MARGIN and path.exists():
        path.unlink(missing_ok=True)  # another command may have taken it
        # Some file systems give back what a file had when this is on the disk, and no earlier.
        sync_file_system_of(directory)
    else:
        _keep(path, size)
    try:
        yield
    finally:
        _keep(path, size)


def _keep(path: Path, size: int) -> None:
    """Give the reserve its size, or as much of it as there is space for."""
    space = os.statvfs(path.parent)
    # of more than the disk has, a part would be all that others need
    if not 0 < size <= space.f_blocks * space.f_frsize:
        path.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        found = path.stat()
        # A program may have copied it as a hole.
        if found.st_size == size <= found.st_blocks * 512:
            return
    with closed_at_end(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)) as descriptor:
        # What a command leaves on a full disk may be less, and the next one gets by with that.
        while size and not _allocated(descriptor, size):
            size = size // 2 if size >= 2 * _LEAST else 0
        os.ftruncate(descriptor, size)


def _allocated(descriptor: int, size: int) -> bool:
    """Allocate `size` bytes of a file; return false if there is no space."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        return False
    return True
