"""Opens what a restore overwrites, unless somebody else uses it or owns it."""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from backy.durable import closed_at_end
from backy.errors import TargetError
from backy.system.links import is_trusted, open_followed

_DEV: Final = Path("/dev")
_QEMU_LOCKS: Final = struct.Struct("hhqqi4x").pack(fcntl.F_WRLCK, os.SEEK_SET, 100, 104, 0)
"""struct flock for the bytes 100 to 203, on which QEMU has locks while it has an image open (block/file-posix.c)."""


@contextmanager
def open_file(path: Path, *, existing: bool, force: bool) -> Iterator[int]:
    """Open a regular file for reading and writing, and keep QEMU away from it meanwhile. Make it if it is missing.

    Args:
        path: The path; symbolic links are followed as `backy.system.links.followed` does.
        existing: Whether an existing file may be opened without `force`.
        force: Whether an existing file may be opened, if the caller is root also one of another user.

    Raises:
        TargetError: the file exists, belongs to somebody else, is in use, or is none; or a device is missing.
        OSError: the file can not be opened.
    """
    _refuse_in_dev(path)
    try:
        descriptor = open_followed(path, os.O_RDWR)
    except FileNotFoundError:
        # O_EXCL, because what appears meanwhile is nothing that was looked at.
        descriptor = open_followed(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        existing = True  # it is our own
    with closed_at_end(descriptor):
        _check_existing(path, os.fstat(descriptor), existing=existing, force=force)
        _lock(path, descriptor)
        yield descriptor


@contextmanager
def open_device(path: Path) -> Iterator[int]:
    """Open a block device that nobody uses for reading and writing, and keep QEMU away from it meanwhile.

    Raises:
        TargetError: the device can not be opened or is in use, or a symbolic link is of somebody else.
    """
    try:
        # Without O_CREAT, O_EXCL refuses a device that is mounted or otherwise in use (open(2)).
        descriptor = open_followed(path, os.O_RDWR | os.O_EXCL)
    except OSError as error:
        hint = "; is it mounted?" if error.errno == errno.EBUSY else ""
        raise TargetError(f"{path}: {error.strerror}{hint}") from error
    with closed_at_end(descriptor):
        _lock(path, descriptor)
        yield descriptor


def _refuse_in_dev(path: Path) -> None:
    """Raise TargetError for a file in /dev: it is a device whose name is misspelt, and would fill the memory."""
    folder = path.resolve().parent
    if not folder.exists():
        return  # the error of opening it says more
    # /dev/shm is for files. It is a file system of its own, and so has another number.
    same = folder.stat().st_dev == _DEV.stat().st_dev
    # The same may be mounted at another place, for a chroot. If it is no mount, this number is that of all files.
    if same and (folder.is_relative_to(_DEV) or _DEV.is_mount()):
        raise TargetError(f"there is no device {path}, and a file in {_DEV} would fill the memory")


def _check_existing(path: Path, status: os.stat_result, *, existing: bool, force: bool) -> None:
    """Raise TargetError unless a file may be overwritten."""
    if not stat.S_ISREG(status.st_mode):
        raise TargetError(f"{path} is neither a file nor a block device; use '-' to write to a pipe")
    if not is_trusted(status.st_uid):
        if os.geteuid() != 0:
            raise TargetError(f"{path} belongs to user {status.st_uid}: only that user and root may replace it")
        if not force:
            raise TargetError(f"{path} belongs to user {status.st_uid}; --force replaces it all the same")
    if not existing and not force:
        raise TargetError(
            f"{path} exists already; --force replaces it, --resume completes what an earlier restore left of it"
        )


def _lock(path: Path, descriptor: int) -> None:
    """Take QEMU's locks on an open file or device; raise TargetError if somebody else has them."""
    # Looking alone (F_OFD_GETLK) would leave QEMU the time of the restore to open the image.
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _QEMU_LOCKS)
    except OSError as error:
        # Where locks are not supported, QEMU has none either.
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            raise TargetError(
                f"{path} is in use: a running QEMU has it open, or another restore writes to it; end that first"
            ) from error
