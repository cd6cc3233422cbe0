"""Opens what an image is restored to: a sparse file, a block device, or a target that a source offers."""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from backy.api import CHUNK_SIZE, PAGE_SIZE, RestoreTarget
from backy.direct import DirectWriter, reopened
from backy.durable import punch_hole, pwrite_all
from backy.errors import BackyError, ConfigError, PluginError, TargetError
from backy.repository.repository import Repository
from backy.restore.overwriting import open_device, open_file

log = logging.getLogger(__name__)
_BLKZEROOUT = 0x127F
"""ioctl of linux/fs.h: zeroes a range of a block device in the way that is fastest for it."""


@runtime_checkable
class ReadableTarget(RestoreTarget, Protocol):
    """A target whose content can be read before it is replaced."""

    def pread(self, offset: int, length: int) -> bytes:
        """Read `length` bytes at `offset`; called from several threads. Raises OSError."""


@contextmanager
def open_target(  # noqa: PLR0913  # what a user may say of a target
    name: str, size: int, repository: Repository, options: Mapping[str, str], *, force: bool, kept: bool = False
) -> Iterator[RestoreTarget]:
    """Open a target for an image, and make it durable at the end.

    Args:
        name: TARGET of `backy restore`, TYPE:ARGUMENT if it has a colon before its first slash. Else the path of a
            block device, or of a file, which is made or emptied.
        size: Bytes of the image.
        repository: The repository, which must not have the target in it.
        options: Options of TYPE, by name.
        force: Whether a file that exists may be replaced, of another user if `kept` is true, or what TYPE names.
        kept: Whether the target is one that an earlier restore did not complete; what it has stays.

    Raises:
        PluginError: there is no such type, or it offers no target.
        ConfigError: ARGUMENT or an option is wrong.
        TargetError: the target exists, can not be opened or read back, is too small, in use, or part of the repository;
            or it is incomplete.
        PermissionError: the target is a symbolic link of somebody else.
    """
    # The rule of scp and rsync. A misspelt type is an error, never the name of a new file.
    kind, colon, argument = name.partition(":")
    is_offered = colon and "/" not in kind
    if kept and (name == "-" or is_offered):
        raise TargetError(f"'{name}' can not be read back: only files and block devices can be resumed")
    if is_offered:
        opened = _offered(kind, repository, argument=argument, options=options, size=size, force=force)
    elif options:
        raise ConfigError(f"options are for targets like TYPE:ARGUMENT; '{name}' is a path")
    else:
        opened = _opened(Path(name), size, repository.directory, kept=kept, force=force)
    with opened as target, _incomplete_on_error(name):
        yield target
        target.finish()


def _offered(kind: str, repository: Repository, **arguments: object) -> AbstractContextManager[RestoreTarget]:
    """Return the target that the source plugin `kind` makes of `arguments`."""
    # Restoring to a path must not pay for loading pluggy.
    from backy.plugins.broken import BrokenPluginError
    from backy.plugins.discovery import Kind
    from backy.plugins.loading import call

    source = repository.config.source
    config = source.options if source and source.type == kind else {}
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
def _opened(path: Path, size: int, repository: Path, *, kept: bool, force: bool) -> Iterator[_File]:
    """Open a file or a block device, and give a file the size of the image; `kept` keeps its content."""
    if path.resolve().is_relative_to(repository.resolve()):
        raise TargetError(f"{path} lies inside of the repository: restore to another place")
    is_device = path.is_block_device()
    if path.exists() and not path.is_file() and not is_device:
        raise TargetError(f"{path} is neither a file nor a block device; use '-' to write to a pipe")
    opened = open_device(path) if is_device else open_file(path, existing=kept, force=force)
    with opened as descriptor, reopened(descriptor) as direct:
        if is_device:
            _check_capacity(path, descriptor, size)
            yield _Device(descriptor, direct, kept=kept)
            return
        with _incomplete_on_error(str(path)):
            if not kept:
                os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, size)
        yield _File(descriptor, direct, kept=kept)


@contextmanager
def _incomplete_on_error(name: str) -> Iterator[None]:
    """Add to every error that the target is incomplete."""
    try:
        yield
    except BackyError as error:
        raise TargetError(f"{error}; {name} is incomplete") from error
    except OSError as error:
        raise TargetError(f"{name} is incomplete: {error.strerror or error}") from error
    except BaseException:
        log.error("%s is incomplete", name)  # noqa: TRY400  # an interrupt needs no traceback
        raise


def _check_capacity(path: Path, descriptor: int, size: int) -> None:
    """Raise TargetError if an image of `size` bytes does not fit on a device."""
    # stat(2) has no size of block devices.
    capacity = os.lseek(descriptor, 0, os.SEEK_END)
    if capacity < size:
        raise TargetError(f"{path} has {capacity} bytes, the image needs {size}")


class _File:
    """A regular file, new and empty or kept from an earlier restore."""

    def __init__(self, descriptor: int, direct: int | None, *, kept: bool) -> None:
        self._descriptor = descriptor
        self._direct = direct
        self._kept = kept
        self._writer = DirectWriter()

    def pread(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def pwrite(self, data: bytes, offset: int) -> None:
        # Past the page cache as far as possible: an image would displace all else in it.
        written = self._writer.pwrite(self._direct, data, offset)
        pwrite_all(self._descriptor, memoryview(data)[written:], offset + written)

    def zero(self, offset: int, length: int) -> None:
        # What is never written of a new file is a hole already. Some file systems can not make one later.
        if not self._kept:
            return
        try:
            punch_hole(self._descriptor, offset, length)
        except OSError:
            for start, piece in self._not_zero(offset, length):
                self.pwrite(bytes(piece), start)

    def finish(self) -> None:
        os.fsync(self._descriptor)

    def _not_zero(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield the parts (offset, length) of a range that do not read as zeroes."""
        for start in range(offset, offset + length, CHUNK_SIZE):
            piece = min(offset + length - start, CHUNK_SIZE)
            if self.pread(start, piece) != bytes(piece):
                yield start, piece


class _Device(_File):
    """A block device, which has old content everywhere."""

    def zero(self, offset: int, length: int) -> None:
        # Of kept content, likely to be right, only what is wrong is written: a read spares the device.
        for start, piece in self._not_zero(offset, length) if self._kept else [(offset, length)]:
            # The ioctl takes whole logical blocks only.
            whole = piece - piece % PAGE_SIZE
            if whole:
                fcntl.ioctl(self._descriptor, _BLKZEROOUT, struct.pack("QQ", start, whole))
            pwrite_all(self._descriptor, bytes(piece - whole), start + whole)
