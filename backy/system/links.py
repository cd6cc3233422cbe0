"""Follows symbolic links only if nobody else can have made them.

In a folder that others may write to, such as /tmp, a name may be a link that one of them has made to a file of ours.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

from backy.durable import closed_at_end

_PROC: Final = Path("/proc")


def is_trusted(owner: int) -> bool:
    """Return whether a user id is that of the caller or of root."""
    return owner in {0, os.geteuid()}


def followed(path: Path) -> Path:
    """Return where `path` leads if it is a symbolic link, else `path` itself; there may be nothing yet.

    Raises:
        PermissionError: a link on the way belongs neither to the caller nor to root.
        OSError: the path can not be looked up.
    """
    here = path
    for _ in range(40):  # as many as the kernel follows in one path (path_resolution(7))
        target = _target(here)
        if target is None:
            return here
        here = here.parent / target
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))


def open_followed(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file as open(2) does, but follow links as `followed` does. Return its descriptor.

    Raises:
        PermissionError: as for `followed`.
        OSError: the file can not be opened.
    """
    here = followed(path)
    # A link that is put there meanwhile is not followed. Those in /proc/self/fd can be followed by the kernel only.
    return os.open(here, flags | os.O_CLOEXEC | (0 if _in_proc(here.parent) else os.O_NOFOLLOW), mode)


def _target(path: Path) -> str | None:
    """Return what a symbolic link says; None if `path` is none, or one that only the kernel can follow."""
    try:
        # By a descriptor: between a look at the owner and one at the target, another link could take its place.
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with closed_at_end(descriptor):
        status = os.fstat(descriptor)
        if not stat.S_ISLNK(status.st_mode):
            return None
        if not is_trusted(status.st_uid):
            text = f"is a symbolic link of user {status.st_uid}; only your own and those of root are followed"
            raise PermissionError(errno.EPERM, text, os.fspath(path))
        target = os.readlink("", dir_fd=descriptor)
    # An open pipe or socket is "pipe:[1234]" there, which is no path.
    return None if not target.startswith("/") and _in_proc(path.parent) else target


def _in_proc(folder: Path) -> bool:
    """Return whether a folder is one of the kernel's file system of processes."""
    return _PROC.exists() and folder.exists() and folder.stat().st_dev == _PROC.stat().st_dev
