"""Files that share blocks until one of them is written to: clones, as btrfs, XFS and others can make them.

Public: sources and storages may use all of it. Descriptors are those of regular files; the errors of the calls are
OSErrors unless something else is said.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from backy.durable import naming
from backy.errors import StorageError

_FICLONE: Final = 0x40049409
_GET_FLAGS: Final = 0x80086601
_SET_FLAGS: Final = 0x40086602
_NO_COW: Final = 0x00800000
_GET_ATTRIBUTES: Final = 0x801C581F
_SET_ATTRIBUTES: Final = 0x401C5820
_ATTRIBUTES: Final = struct.Struct("=5I8x")
"""struct fsxattr of linux/fs.h: flags, extent size, number of extents, project, CoW extent size."""
_HAS_COW_EXTENT_SIZE: Final = 0x00010000
_KEEP_SIZE_AND_PUNCH_HOLE: Final = 0x01 | 0x02
_UNSUPPORTED: Final = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS}
_PROBE: Final = ".reflink"


def clone(source: int, target: int) -> None:
    """Let the empty file `target` have the content of `source` and share its blocks.

    Both get to be alike first where the file system wants it (NOCOW), and `target` will copy single blocks when it is
    written to: XFS copies 128 KiB around each of them otherwise.
    """
    _match_no_cow(source, target)
    _copy_single_blocks(target)
    share(source, target)


def share(source: int, target: int) -> None:
    """Make the clone itself (FICLONE); `clone` is what is wanted."""
    fcntl.ioctl(target, _FICLONE, source)


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Let a range read as zeroes and give its blocks back; the file keeps its length."""
    number = punch(descriptor, offset, length)
    if number:
        raise OSError(number, os.strerror(number))


def punch(descriptor: int, offset: int, length: int) -> int:
    """Make the hole itself (fallocate(2)); return the number of the error, 0 without one. `punch_hole` is wanted."""
    libc = ctypes.CDLL(None, use_errno=True)
    range_ = ctypes.c_int64(offset), ctypes.c_int64(length)
    return ctypes.get_errno() if libc.fallocate64(descriptor, _KEEP_SIZE_AND_PUNCH_HOLE, *range_) else 0


def is_no_cow(descriptor: int) -> bool:
    """Tell whether a file is written in place though its file system copies on write (chattr +C on btrfs)."""
    try:
        return bool(_flags(descriptor) & _NO_COW)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise


def require_clones(folder: Path) -> None:
    """Make sure that files in `folder` can share blocks, by trying it.

    Raises:
        StorageError: they can not; the text says which file systems can.
    """
    with ExitStack() as cleaning:
        descriptors = [_temporary(folder / f"{_PROBE}-{name}.tmp", cleaning) for name in ("source", "target")]
        os.write(descriptors[0], b"backy")
        try:
            with naming(folder):
                clone(*descriptors)
        except OSError as error:
            if not is_unsupported(error):
                raise
            raise cannot_clone(folder) from error


def _temporary(path: Path, cleaning: ExitStack) -> int:
    """Make an empty file that goes when `cleaning` does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    cleaning.callback(path.unlink)
    cleaning.callback(os.close, descriptor)
    return descriptor


def is_unsupported(error: OSError) -> bool:
    """Tell whether an error of `clone` says that the file system can not make clones."""
    return error.errno in _UNSUPPORTED


def cannot_clone(folder: Path) -> StorageError:
    """Return the error for a `folder` in which there can be no clones."""
    return StorageError(
        f"{folder} lies on a file system that can not share blocks between files (reflink): btrfs can, and so can XFS "
        "made with reflink=1, bcachefs and OCFS2"
    )


def _match_no_cow(source: int, target: int) -> None:
    """Write `target` in place if, and only if, `source` is: btrfs makes no clones between the two kinds."""
    wanted = is_no_cow(source)
    if wanted != is_no_cow(target):
        flags = _flags(target)
        fcntl.ioctl(target, _SET_FLAGS, struct.pack("l", flags | _NO_COW if wanted else flags & ~_NO_COW))


def _flags(descriptor: int) -> int:
    """Return the attributes of lsattr(1)."""
    flags: int = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(struct.calcsize("l"))))[0]
    return flags & 0xFFFFFFFF


def _copy_single_blocks(target: int) -> None:
    """Set the CoW extent size of an empty file to one block, on file systems that have such a thing."""
    try:
        attributes = fcntl.ioctl(target, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
        flags, extent_size, extents, project, _ = _ATTRIBUTES.unpack(attributes)
        block = os.fstatvfs(target).f_frsize
        wanted = _ATTRIBUTES.pack(flags | _HAS_COW_EXTENT_SIZE, extent_size, extents, project, block)
        fcntl.ioctl(target, _SET_ATTRIBUTES, wanted)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
