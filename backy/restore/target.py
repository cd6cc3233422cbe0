"""Where an image is restored to: a sparse file, a block device, or a place that a source offers."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from backy.api import CHUNK_SIZE, PAGE_SIZE, RestoreTarget
from backy.durable import pwrite_all
from backy.errors import BackyError, ConfigError, PluginError, TargetError
from backy.reflink import punch
from backy.repository.repository import Repository
from backy.system.direct import DirectWriter, reopened

log = logging.getLogger(__name__)
Opened = TypeVar("Opened", bound=RestoreTarget)
_BLKZEROOUT = 0x127F
"""ioctl of linux/fs.h: let a range of a block device read as zeroes, by whatever way is fastest."""


class ReadableTarget(RestoreTarget, Protocol):
    """A target that has something already, which can be looked at before it is replaced."""

    def pread(self, offset: int, length: int) -> bytes:
        """Read `length` bytes at `offset`, from any thread; raises OSError."""


@contextmanager
def open_target(
    name: str, size: int, repository: Repository, options: Mapping[str, str], *, force: bool
) -> Iterator[RestoreTarget]:
    """Open TARGET of `backy restore` for an image of `size` bytes, and make it durable at the end.

    A name that has a colon before its first slash is TYPE:ARGUMENT, as scp and rsync have it: so a misspelt type never
    makes a file. Anything else is the path of a file, which is made or emptied, or of a block device.

    Raises:
        PluginError: there is no such type, or it offers no target.
        ConfigError: ARGUMENT or an option is wrong.
        TargetError: the target can not be had, is too small, in use, or part of the repository; or it is incomplete.
    """
    kind, colon, argument = name.partition(":")
    if colon and "/" not in kind:
        opened = _offered(kind, repository, argument=argument, options=options, size=size, force=force)
    elif options:
        raise ConfigError(f"options are for targets like TYPE:ARGUMENT; '{name}' is a path")
    else:
        opened = _path(Path(name), size, repository.directory, _SparseFile, _Device)
    with opened as target, _told_if_incomplete(name):
        yield target
        target.finish()


@contextmanager
def open_again(name: str, size: int, repository: Repository) -> Iterator[ReadableTarget]:
    """Open a file or a block device that an earlier restore did not complete, and keep what is in it.

    Raises:
        TargetError: as for `open_target`, or it is neither.
    """
    if name == "-" or ":" in name.partition("/")[0]:
        raise TargetError(f"'{name}' can not be read back: only files and block devices can be resumed")
    opened: AbstractContextManager[ReadableTarget]
    opened = _path(Path(name), size, repository.directory, _KeptFile, _KeptDevice)
    with opened as target, _told_if_incomplete(name):
        yield target
        target.finish()


def _offered(kind: str, repository: Repository, **arguments: object) -> AbstractContextManager[RestoreTarget]:
    """Ask the source plugin `kind` for its target."""
    from backy.plugins.broken import BrokenPluginError
    from backy.plugins.discovery import Kind
    from backy.plugins.loading import call

    source = repository.config.source
    config = source.written if source.type == kind else {}
    opened: AbstractContextManager[RestoreTarget]
    try:
        opened = call(Kind.SOURCE, kind, "backy_restore_target", config=config, **arguments)
    except BrokenPluginError:
        raise
    except PluginError as error:
        hint = f"to restore to a file of this name write './{kind}:{arguments['argument']}'"
        raise PluginError(f"{error}; {hint}") from error
    return opened


@contextmanager
def _path(
    path: Path,
    size: int,
    repository: Path,
    as_file: Callable[[int, int | None], Opened],
    as_device: Callable[[int, int | None], Opened],
) -> Iterator[Opened]:
    if path.resolve().is_relative_to(repository.resolve()):
        raise TargetError(f"{path} lies inside of the repository: restore to another place")
    if path.exists() and not path.is_file() and not path.is_block_device():
        raise TargetError(f"{path} is neither a file nor a block device; use '-' to write to a pipe")
    device = path.is_block_device()
    descriptor = _open_device(path, size) if device else os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with reopened(descriptor) as direct:
            opened = as_device(descriptor, direct) if device else as_file(descriptor, direct)
            if not device:
                with _told_if_incomplete(str(path)):
                    if not isinstance(opened, _KeptFile):
                        os.ftruncate(descriptor, 0)
                    os.ftruncate(descriptor, size)
            yield opened
    finally:
        os.close(descriptor)


@contextmanager
def _told_if_incomplete(name: str) -> Iterator[None]:
    """Add to whatever ends a restore that its target is not to be used."""
    try:
        yield
    except BackyError as error:
        raise TargetError(f"{error}; {name} is incomplete") from error
    except OSError as error:
        raise TargetError(f"{name} is incomplete: {error.strerror or error}") from error
    except BaseException:
        log.error("%s is incomplete", name)  # noqa: TRY400  # who interrupts a restore needs no traceback
        raise


def _open_device(path: Path, size: int) -> int:
    try:
        # without O_CREAT, O_EXCL refuses a device that is mounted or otherwise in use
        descriptor = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        hint = "; is it mounted?" if error.errno == errno.EBUSY else ""
        raise TargetError(f"{path}: {error.strerror}{hint}") from error
    capacity = os.lseek(descriptor, 0, os.SEEK_END)
    if capacity < size:
        os.close(descriptor)
        raise TargetError(f"{path} has {capacity} bytes, the image needs {size}")
    return descriptor


class _SparseFile:
    """A new or emptied file: what is not written is a hole."""

    def __init__(self, descriptor: int, direct: int | None) -> None:
        self._descriptor = descriptor
        self._direct = direct
        self._writer = DirectWriter()

    def pwrite(self, data: bytes, offset: int) -> None:
        written = self._writer.pwrite(self._direct, data, offset)
        pwrite_all(self._descriptor, memoryview(data)[written:], offset + written)

    def zero(self, offset: int, length: int) -> None:
        pass

    def finish(self) -> None:
        os.fsync(self._descriptor)


class _Device(_SparseFile):
    """A block device: what is in it already has to be zeroed."""

    def zero(self, offset: int, length: int) -> None:
        whole = length - length % PAGE_SIZE
        if whole:
            fcntl.ioctl(self._descriptor, _BLKZEROOUT, struct.pack("QQ", offset, whole))
        pwrite_all(self._descriptor, bytes(length - whole), offset + whole)


class _KeptFile(_SparseFile):
    """A file of which only what is wrong is written."""

    def pread(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def zero(self, offset: int, length: int) -> None:
        if punch(self._descriptor, offset, length):  # some file systems can not
            for start, piece in _not_zero(self, offset, length):
                self.pwrite(bytes(piece), start)


class _KeptDevice(_Device):
    """A block device of which only what is wrong is written."""

    def pread(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def zero(self, offset: int, length: int) -> None:
        for start, piece in _not_zero(self, offset, length):
            super().zero(start, piece)


def _not_zero(target: ReadableTarget, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a range that do not read as zeroes."""
    for start in range(offset, offset + length, CHUNK_SIZE):
        piece = min(offset + length - start, CHUNK_SIZE)
        if target.pread(start, piece) != bytes(piece):
            yield start, piece
