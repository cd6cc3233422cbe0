"""Files that are whole or not there: every write of metadata, and the calls that bring data to the disk."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

READ_ONLY = 0o440
TEMPORARY_SUFFIX = ".tmp"
_ZEROES = bytes(64 * 1024)


def write_file(path: Path, content: bytes | bytearray | mmap.mmap, mode: int = READ_ONLY) -> None:
    """Replace `path` by `content` so that a crash at any instant leaves the old file or the new one, never a part.

    Temporary file in the same folder, fsync, rename, fsync of the folder. Zero pages of long contents become holes.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            with naming(path):
                write_sparse(descriptor, content)
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_if_different(path: Path, content: bytes, mode: int) -> None:
    """Write a file unless it is there with this content already."""
    if not path.is_file() or path.read_bytes() != content:
        write_file(path, content, mode)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Let errors of calls that know a descriptor alone name the file that it belongs to."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def write_all(descriptor: int, content: bytes | bytearray | memoryview) -> None:
    """Write all of `content`, however many calls that takes."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def pwrite_all(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of `content` at `offset`, however many calls that takes."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def write_sparse(descriptor: int, content: bytes | bytearray | mmap.mmap) -> None:
    """Write `content` to a new file, long runs of zeroes as holes: the map of a sparse image is mostly that."""
    os.ftruncate(descriptor, len(content))
    for offset in range(0, len(content), len(_ZEROES)):
        piece = content[offset : offset + len(_ZEROES)]
        if piece != _ZEROES:
            os.lseek(descriptor, offset, os.SEEK_SET)
            write_all(descriptor, piece)


def replace_link(link: Path, target: str) -> None:
    """Point the symbolic link `link` at `target` in one step: there is no instant without a link."""
    temporary = link.with_name(f".{link.name}{TEMPORARY_SUFFIX}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(link)
    sync_folder(link.parent)


def sync_folder(folder: Path | str) -> None:
    """Make renames and removals in `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system_of(folder: Path | str) -> None:
    """Write everything on the file system that `folder` lies on to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming(folder):
            sync_file_system(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Write everything on the file system of `descriptor` to disk.

    Raises:
        OSError: data could not be written since `descriptor` was opened.
    """
    number = syncfs(descriptor)
    if number:
        raise OSError(number, os.strerror(number))


def syncfs(descriptor: int) -> int:
    """Sync a file system; return the number of the error, 0 without one. Python's os module lacks this call."""
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.syncfs(ctypes.c_int(descriptor)) else 0
