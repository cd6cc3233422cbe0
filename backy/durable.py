"""Writes files that are whole or not there, and brings data to the disk.

Plugins may use all of it. Calls raise OSError.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

READ_ONLY = 0o440
TEMPORARY_SUFFIX = ".tmp"
_ZEROES = bytes(64 * 1024)


def write_file(path: Path, content: bytes | bytearray | mmap.mmap, mode: int = READ_ONLY) -> None:
    """Replace the file `path` by one with `content` and `mode`, durably. Long runs of zeroes become holes.

    A crash at any time leaves the old file or the new one, never a part.
    """
    # Temporary file in the same folder, fsync, rename, fsync of the folder: each step is on the disk before the next.
    # The mode is set by fchmod, because the umask limits the mode of open.
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
    """Write `content` to a file unless the file has it already. Ignore the mode of an existing file."""
    if not path.is_file() or path.read_bytes() != content:
        write_file(path, content, mode)


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


def write_all(descriptor: int, content: bytes | bytearray | memoryview) -> None:
    """Write all of `content` at the current position."""
    # write(2) may write less: at a signal, at a full disk, or above 2 GiB.
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


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
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming(folder):
            sync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Write everything on the file system of `descriptor` to the disk.

    Raises:
        OSError: data could not be written after `descriptor` was opened.
    """
    number = syncfs(descriptor)
    if number:
        raise OSError(number, os.strerror(number))


def syncfs(descriptor: int) -> int:
    """Sync a file system and return the number of the error; 0 for success. `sync_file_system` raises it."""
    # Python's os module does not have this call.
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.syncfs(ctypes.c_int(descriptor)) else 0
