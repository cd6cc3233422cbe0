"""Opens what an image is restored to: a sparse file, a block device, or a target that a source offers.

What somebody else uses or owns is not overwritten.
"""

import errno
import fcntl
import logging
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from backy.api import CHUNK_SIZE, RestoreTarget
from backy.direct import DirectWriter, reopened
from backy.durable import closed_at_end, punch_hole, pwrite_all, zero_device
from backy.errors import BackyError, ConfigError, PluginError, TargetError
from backy.repository.repository import Repository
from backy.system.links import is_trusted, open_followed

log = logging.getLogger(__name__)
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
        ways = "--force replaces it, --resume completes what an earlier restore left of it"
        raise TargetError(f"{path} exists already; {ways}")


def _lock(path: Path, descriptor: int) -> None:
    """Take QEMU's locks on an open file or device; raise TargetError if somebody else has them."""
    # Looking alone (F_OFD_GETLK) would leave QEMU the time of the restore to open the image.
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _QEMU_LOCKS)
    except OSError as error:
        # Where locks are not supported, QEMU has none either.
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            user = "a running QEMU has it open, or another restore writes to it"
            raise TargetError(f"{path} is in use: {user}; end that first") from error


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
        words = {"argument": argument, "options": options, "size": size, "force": force}
        opened = offered(kind, repository, "backy_restore_target", **words)
    elif options:
        raise ConfigError(f"options are for targets like TYPE:ARGUMENT; '{name}' is a path")
    else:
        opened = _opened(Path(name), size, repository.directory, kept=kept, force=force)
    with opened as target, _incomplete_on_error(name):
        yield target
        target.finish()


def offered(kind: str, repository: Repository, hook: str, **arguments: object) -> Any:  # noqa: ANN401  # the hook says what it is
    """Return the target that the source plugin `kind` makes by `hook`; raises PluginError or ConfigError."""
    # Restoring to a path must not pay for loading pluggy.
    from backy.plugins.broken import BrokenPluginError
    from backy.plugins.discovery import Kind
    from backy.plugins.loading import call

    source = repository.config.source
    config = source.options if source and source.type == kind else {}
    try:
        return call(Kind.SOURCE, kind, hook, config=config, **arguments)
    except BrokenPluginError:
        raise
    except PluginError as error:
        hint = f"to restore to a file of this name write './{kind}:{arguments['argument']}'"
        raise PluginError(f"{error}; {hint}") from error


@contextmanager
def _opened(path: Path, size: int, repository: Path, *, kept: bool, force: bool) -> Iterator["_File"]:
    """Open a file or a block device, and give a file the size of the image; `kept` keeps its content."""
    if path.resolve().is_relative_to(repository.resolve()):
        raise TargetError(f"{path} lies inside of the repository: restore to another place")
    is_device = path.is_block_device()
    if path.exists() and not path.is_file() and not is_device:
        raise TargetError(f"{path} is neither a file nor a block device; use '-' to write to a pipe")
    opened = open_device(path) if is_device else open_file(path, existing=kept, force=force)
    with opened as descriptor, reopened(descriptor) as direct:
        if is_device:
            # stat(2) has no size of block devices.
            capacity = os.lseek(descriptor, 0, os.SEEK_END)
            if capacity < size:
                raise TargetError(f"{path} has {capacity} bytes, the image needs {size}")
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
        log.error("%s is incomplete; 'backy restore --resume' goes on with it", name)  # noqa: TRY400  # an interrupt needs no traceback
        raise


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
            zero_device(self._descriptor, start, piece)
