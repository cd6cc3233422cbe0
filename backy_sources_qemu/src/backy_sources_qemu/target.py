"""Restores to a new qcow2 file, and to an export of an NBD server."""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from backy.api import ConfigError, RestoreTarget, TargetError
from backy.durable import sync_folder
from backy.errors import raising
from backy_sources_qemu import export
from backy_sources_qemu.scratch import run

_QEMU_LOCKS: Final = struct.Struct("hhqqi4x").pack(fcntl.F_WRLCK, os.SEEK_SET, 100, 104, 0)
"""struct flock for the bytes on which QEMU has locks while it has an image open (block/file-posix.c)."""
_MODE: Final = 0o600
_STEP: Final = 2**30
"""Bytes that are zeroed at a time."""


def check_options(options: Mapping[str, str]) -> None:
    """Raise ConfigError if there are options: these targets have none."""
    if options:
        raise ConfigError(f"there is no option '{next(iter(options))}' for this target; it has none")


class ExportTarget:
    """A writable export. Several threads may write. `is_empty` tells that it reads as zeroes."""

    def __init__(self, opened: export.Export, *, is_empty: bool) -> None:
        self._export = opened
        self._is_empty = is_empty

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data`."""
        read, block = self._export.pread, self._export.block
        head, tail = offset % block, -(offset + len(data)) % block
        with raising(TargetError, self._export.what), self._export.told():
            if head or tail:
                data = read(offset - head, head) + data + read(offset + len(data), tail)
            for at in range(0, len(data), export.PIECE):
                self._export.handle.pwrite(data[at : at + export.PIECE], offset - head + at)

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeroes. What is empty stays so."""
        if self._is_empty:
            return
        end, block = offset + length, self._export.block
        while offset < end:
            whole = 0 if offset % block else min(end - offset, _STEP) // block * block
            with raising(TargetError, self._export.what), self._export.told():
                if whole and self._export.handle.can_zero():
                    self._export.handle.zero(whole, offset)
                else:
                    whole = min(export.PIECE, end - offset)
                    self.pwrite(bytes(whole), offset)
            offset += whole

    def finish(self) -> None:
        """Make everything durable."""
        with raising(TargetError, self._export.what), self._export.told():
            if self._export.handle.can_flush():
                self._export.handle.flush()


@contextmanager
def opened_export(uri: str, size: int, *, force: bool) -> Iterator[RestoreTarget]:
    """Open an export. Replace what is in it if `force` is set.

    Raises:
        TargetError: it can not be reached or written, is too small, or has data.
    """
    what = f"target {uri}"
    with ExitStack() as stack:
        with raising(TargetError, what):
            opened = stack.enter_context(export.opened(what, uri))
            if opened.handle.is_read_only():
                raise TargetError(f"{what} is read-only")
            if opened.size < size:
                raise TargetError(f"{what} has {opened.size} bytes, and the image has {size}")
            is_empty = not any(extent.data for extent in opened.extents())
        if not is_empty and not force:
            raise TargetError(f"{what} has data, or does not tell that it has none; --force replaces all of it")
        target = ExportTarget(opened, is_empty=is_empty)
        # what is behind the image may be another machine's
        target.zero(size, opened.size - size)
        yield target


@contextmanager
def opened_file(path: Path, size: int, *, force: bool) -> Iterator[RestoreTarget]:
    """Make a qcow2 file, which gets its name when it is complete. Replace an existing one if `force` is set.

    Raises:
        TargetError: the file exists, is in use, or can not be made.
    """
    what, part = f"target {path}", path.with_name(f"{path.name}.incomplete")
    with ExitStack() as stack:
        with raising(TargetError, what):
            existing = _kept_away(stack, what, path, force=force)
            made = _make(part, existing)
            stack.callback(os.close, made)
        try:
            with ExitStack() as served:
                with raising(TargetError, what):
                    # QEMU takes whole sectors
                    run(what, "qemu-img", "create", "-q", "-f", "qcow2", str(part), str(-(-size // 512) * 512))
                    server = ["qemu-nbd", "-f", "qcow2", str(part)]
                    opened = served.enter_context(export.opened(what, server))
                yield ExportTarget(opened, is_empty=True)
            with raising(TargetError, what):
                os.fsync(made)
                part.rename(path)
                sync_folder(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _kept_away(stack: ExitStack, what: str, path: Path, *, force: bool) -> int | None:
    """Open an existing file, and keep QEMU away from it until `stack` ends; return None if there is none."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    stack.callback(os.close, descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise TargetError(f"{what} is no file; 'nbd:' and paths are other targets")
    if not force:
        raise TargetError(f"{what} exists already; --force replaces it")
    try:
        # looking alone would leave QEMU the time of the restore to open it
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _QEMU_LOCKS)
    except OSError as error:
        # where locks are not supported, QEMU has none either
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            raise TargetError(f"{what} is in use: a running QEMU has it open; shut the machine down first") from error
    return descriptor


def _make(part: Path, existing: int | None) -> int:
    """Make a file that is not complete yet, with owner and mode of the one that it will replace."""
    try:
        made = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    except FileExistsError:
        raise TargetError(f"{part} exists: unless another restore writes to it now, remove it") from None
    if existing is not None:
        status = os.fstat(existing)
        with suppress(PermissionError):
            os.fchown(made, status.st_uid, status.st_gid)
        os.fchmod(made, stat.S_IMODE(status.st_mode))
    return made
