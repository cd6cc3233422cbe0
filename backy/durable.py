"""Writes files that are whole or not there, brings data to the disk, and reads what anybody may have put there.

Plugins may use all of it. Calls raise OSError.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backy.errors import RepositoryError

READ_ONLY = 0o440
# A repository may come from elsewhere: opening a pipe in it would wait for a writer for ever, a device may have no
# end, and a sparse file that claims any length costs nobody anything.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_FILE = errno.EINVAL, "it is no regular file"
SMALL = 64 * 1024
"""Bytes of a file that has a few lines."""
TEMPORARY_SUFFIX = ".tmp"
_ZEROES = bytes(64 * 1024)
# Flags of fallocate(2), from linux/falloc.h.
_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_BLKZEROOUT = 0x127F
"""ioctl of linux/fs.h: zeroes a range of a block device in the way that is fastest for it."""
_LARGEST_BLOCK = 4096
"""Bytes of the largest logical block of a device. The ioctl takes whole blocks only."""


class WrongFileError(OSError):
    """What has the name of a file is no regular file, or too long: looking again does not help."""


def write_file(
    path: Path, content: bytes | bytearray | mmap.mmap, mode: int = READ_ONLY, *, durable: bool = True
) -> None:
    """Replace the file `path` by one with `content` and `mode`. Long runs of zeroes become holes.

    An end of the program leaves the old file or the new one, never a part. So does a crash of the machine, unless
    `durable` is false.
    """
    # Temporary file in the same folder, fsync, rename, fsync of the folder: each step is on the disk before the next.
    # The mode is set by fchmod, because the umask limits the mode of open.
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with closed_at_end(descriptor), naming(path):
            write_sparse(descriptor, content)
            os.fchmod(descriptor, mode)
            if durable:
                os.fsync(descriptor)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_if_different(path: Path, content: bytes, mode: int) -> None:
    """Write `content` to a file unless the file has it already. Ignore the mode of an existing file."""
    with suppress(OSError):  # missing, longer, or something else: it is replaced, or the write tells why not
        if read_file(path, len(content)) == content:
            return
    write_file(path, content, mode)


def read_file(path: Path | str, limit: int = SMALL, *, follow: bool = False) -> bytes:
    """Return the content of a regular file of at most `limit` bytes. Opens it as `open_regular` does."""
    descriptor, size = open_sized(path, limit, follow=follow)
    with closed_at_end(descriptor), naming(path):
        return pread_all(descriptor, size, 0)


def refuse_links(directory: Path, *names: str) -> None:
    """Raise RepositoryError if one of these folders of a repository is a symbolic link."""
    # What it leads to may belong to others, and a purge would remove their chunks. It asks a thousand times: no Path.
    for path in (os.path.join(directory, name) for name in names):  # noqa: PTH118  # see above
        if os.path.islink(path):  # noqa: PTH114  # see above
            raise RepositoryError(f"{path} is a symbolic link, which is not followed: put the folder itself there")


def names_in(folder: Path) -> list[str]:
    """Return the names of all that is in a folder; of a Path for each, a hundred thousand would take a second."""
    return os.listdir(folder)  # noqa: PTH208  # see above


def open_regular(path: Path | str, limit: int | None = None, *, follow: bool = False) -> int:
    """Open a regular file of at most `limit` bytes for reading, without ever waiting; return its descriptor.

    Raises:
        WrongFileError: it is longer, or no regular file: a folder, a pipe, a socket, a device, or a link unless
            `follow` is true.
        OSError: it can not be opened.
    """
    return open_sized(path, limit, follow=follow)[0]


def open_sized(path: Path | str, limit: int | None = None, *, follow: bool = False) -> tuple[int, int]:
    """Open a regular file as `open_regular` does; return its descriptor and its size."""
    try:
        descriptor = os.open(path, _FLAGS if follow else _FLAGS | os.O_NOFOLLOW)
    except OSError as error:
        # These mean a link and a socket, and their texts tell nobody so.
        if error.errno not in {errno.ELOOP, errno.ENXIO}:
            raise
        raise WrongFileError(*_NO_FILE, os.fspath(path)) from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and (limit is None or status.st_size <= limit):
        return descriptor, status.st_size
    os.close(descriptor)
    longer = errno.EFBIG, f"it has {status.st_size} bytes, which is more than {limit}"
    raise WrongFileError(*(longer if stat.S_ISREG(status.st_mode) else _NO_FILE), os.fspath(path))


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Add the name of the file to an OSError that has none."""
    # Calls that only get a descriptor do not know the name, and operators need it.
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def closed_at_end(descriptor: int) -> Iterator[int]:
    """Close a descriptor when the context ends."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes | bytearray | memoryview) -> None:
    """Write all of `content` at the current position."""
    # write(2) may write less: at a signal, at a full disk, or above 2 GiB.
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def pread_all(descriptor: int, length: int, offset: int) -> bytes:
    """Return `length` bytes at `offset`, fewer at the end of the file only."""
    # pread(2) may read less: at a signal, before a bad block, above 2 GiB, or on a network file system.
    content = os.pread(descriptor, length, offset)
    while len(content) < length and (more := os.pread(descriptor, length - len(content), offset + len(content))):
        content += more
    return content


def pwrite_all(descriptor: int, content: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `content` at `offset` bytes."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def write_sparse(descriptor: int, content: bytes | bytearray | mmap.mmap) -> None:
    """Write `content` to an empty file, with long runs of zeroes as holes."""
    # The map of a sparse image is mostly zeroes.
    os.ftruncate(descriptor, len(content))
    for offset in range(0, len(content), len(_ZEROES)):
        piece = content[offset : offset + len(_ZEROES)]
        if piece != _ZEROES:
            pwrite_all(descriptor, piece, offset)


def allocate_ahead(descriptor: int, length: int) -> None:
    """Have about `length` bytes allocated behind the end of a file, whose size stays; give up where that can not be."""
    status = os.fstat(descriptor)
    if status.st_blocks * 512 - status.st_size < length // 2:
        # Python's os module does not have this call. It fails on a full disk, or where a file system does not have it.
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate(descriptor, _KEEP_SIZE, ctypes.c_int64(status.st_size), ctypes.c_int64(length))


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Make a range of a file a hole and free its blocks. The length of the file stays."""
    c_call("fallocate64", descriptor, _KEEP_SIZE | _PUNCH_HOLE, offset, length)


def zero_device(descriptor: int, offset: int, length: int) -> None:
    """Fill a range of a block device with zeroes."""
    whole = 0 if offset % _LARGEST_BLOCK else length - length % _LARGEST_BLOCK
    if whole:
        fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("QQ", offset, whole))
    pwrite_all(descriptor, bytes(length - whole), offset + whole)


def replace_link(link: Path, target: str) -> None:
    """Point the symbolic link `link` at `target`, durably. There is a link at any time."""
    # Renaming is the only call that replaces a link in one step.
    temporary = link.with_name(f".{link.name}{TEMPORARY_SUFFIX}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(link)
    sync_folder(link.parent)


def sync_folder(folder: Path | str) -> None:
    """Make new names, renames and removals in `folder` survive a power loss."""
    _sync(folder, os.fsync)


def sync_file_system_of(folder: Path | str) -> None:
    """Write everything on the file system that contains `folder` to the disk."""
    _sync(folder, sync_file_system)


def _sync(folder: Path | str, sync: Callable[[int], None]) -> None:
    """Open `folder`, call `sync` with its descriptor, and name the folder in errors."""
    with closed_at_end(os.open(folder, os.O_RDONLY | os.O_DIRECTORY)) as descriptor, naming(folder):
        sync(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Write everything on the file system of `descriptor` to the disk.

    Raises:
        OSError: data could not be written after `descriptor` was opened.
    """
    c_call("syncfs", descriptor)


def c_call(name: str, *arguments: int) -> None:
    """Call a function of the C library that Python's `os` does not have. Recordings of tests take its place."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*map(ctypes.c_int64, arguments)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
