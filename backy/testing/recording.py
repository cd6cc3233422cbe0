"""Records every call by which this process changes a directory, and makes some of them fail.

A recording replaces functions of `os`, ioctl(FICLONE), and the calls that `backy.durable` adds to them, while it
runs. It sees Python code in all threads, but neither other processes nor libraries written in C. At its end it replays
all operations in memory and compares the result with the directory, so that a change that it did not see is an error.
A clone is recorded as a write of all its content, a hole as a write of zeroes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from backy import durable
from backy.testing import memory
from backy.testing.operations import Chmod, Enter, Operation, Remove, Rename, Sync, SyncAll, Truncate, Write
from backy.testing.tree import File, Folder, Link, Node, Tree, has_room

Name = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Blobs = Mapping[str, bytes]
# Nothing in backy uses these; a recording refuses them instead of missing them.
_REFUSED: Final = ("copy_file_range", "mkfifo", "mknod", "posix_fallocate", "pwritev", "sendfile", "writev")
_OTHERS: Final = ((fcntl, "ioctl"), (durable, "syncfs"), (durable, "punch"), (memory, "changing"))
_FICLONE: Final = 0x40049409
# Calls that may need space, and so fail on a full disk.
_GROWING: Final = {"open", "write", "pwrite", "ftruncate", "truncate", "mkdir", "symlink", "link", "ioctl", "punch"}


class IncompleteRecordingError(AssertionError):
    """The directory changed by a call that the recording did not see; the text names the paths."""


@dataclass(frozen=True)
class Fault:
    """A call that fails, or a full disk from a call on."""

    call: int
    """Number of the call in the recording, from 0."""
    number: int = errno.EIO
    """Error number of the failure."""
    lasting: bool = False
    """Whether all calls from `call` on fail that may need space, and no others, as on a full disk."""


class Recording:
    """The changes in a directory."""

    def __init__(self, directory: Path, fault: Fault | None = None, blobs: Blobs | None = None) -> None:
        self.directory = directory.resolve()
        self.before = Tree.read(directory)
        """The directory at the beginning of the recording."""
        self.operations: list[Operation] = []
        """The operations in order."""
        self.calls: list[str] = []
        """The names of all calls that could fail, with the one that did."""
        self.blobs: list[dict[str, bytes]] = []
        """What was kept elsewhere: at the beginning, after each operation, and at the end; empty if that is nowhere."""
        self._fault = fault
        self._elsewhere = blobs
        self._now = self.before.copy()
        self._next = len(self.before.nodes)
        self._open: dict[int, int] = {}
        self._lock = threading.RLock()
        self._real = SimpleNamespace()

    # replacing functions ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Replace the functions by methods named `_call_` and the name of the function."""
        for name in [name.removeprefix("_call_") for name in dir(self) if name.startswith("_call_")]:
            setattr(self._real, name, getattr(os, name))
            setattr(os, name, getattr(self, f"_call_{name}"))
        for name in _REFUSED:
            setattr(self._real, name, getattr(os, name))
            setattr(os, name, self._refused(name))
        for module, name in _OTHERS:
            setattr(self._real, name, getattr(module, name))
            setattr(module, name, getattr(self, f"_{name}"))

    def look(self) -> None:
        """Remember what is kept elsewhere now."""
        if self._elsewhere is not None:
            self.blobs.append(dict(self._elsewhere))

    def stop(self) -> None:
        """Put the functions back."""
        for module, name in _OTHERS:
            setattr(module, name, self._real.__dict__.pop(name))
        for name, function in vars(self._real).items():
            setattr(os, name, function)

    def check(self) -> None:
        """Replay all operations on `before`; raise IncompleteRecordingError if the result is not the directory."""
        tree = self.before.copy()
        for operation in self.operations:
            operation.apply(tree)
        if missed := tree.differences(Tree.read(self.directory)):
            raise IncompleteRecordingError(f"changed by a call that is not recorded: {', '.join(missed)}")

    def _refused(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401  # any function at all
            concerned = [argument for argument in arguments if isinstance(argument, int) and argument in self._open]
            if concerned or (name.startswith("mk") and self._path(arguments[0], keywords.get("dir_fd")) is not None):
                raise IncompleteRecordingError(f"os.{name} can not be recorded")
            return getattr(self._real, name)(*arguments, **keywords)

        return call

    # calls with descriptors -------------------------------------------------------------------------------------------

    def _call_open(self, path: Name, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        inside = self._path(path, dir_fd)
        if inside is None:
            return int(self._plain("open", path, flags, mode, dir_fd=dir_fd))
        with self._lock:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise IncompleteRecordingError("O_TMPFILE can not be recorded")
            existing = self._now.find(inside)
            # Only calls that change something count.
            if flags & os.O_TRUNC or (flags & os.O_CREAT and existing is None):
                self._may_fail("open", path)
            descriptor = int(self._plain("open", path, flags, mode, dir_fd=dir_fd))
            # The kernel knows which file it is, whatever links the path has.
            inside = self._path(f"/proc/self/fd/{descriptor}", None, follow=True)
            number = None if inside is None else self._now.find(inside)
            if inside is not None and number is None and flags & os.O_CREAT:
                number = self._enter(inside, File(stat.S_IMODE(os.fstat(descriptor).st_mode)))
            elif number is not None and flags & os.O_TRUNC:
                self._note(Truncate(number, 0))
            if number is not None:
                self._open[descriptor] = number
            return descriptor

    def _call_close(self, fd: int) -> None:
        with self._lock:
            self._open.pop(fd, None)
            self._real.close(fd)

    def _call_write(self, fd: int, data: bytes | memoryview) -> int:
        if fd not in self._open:
            return int(self._plain("write", fd, data))
        with self._lock:
            self._may_fail("write into allocated space" if has_room(fd, len(data)) else "write")
            count: int = self._real.write(fd, data)
            # The position moves with the write, also of a descriptor opened with O_APPEND.
            offset = os.lseek(fd, 0, os.SEEK_CUR) - count
            self._note(Write(self._open[fd], offset, bytes(memoryview(data)[:count])))
            return count

    def _call_pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if fd not in self._open:
            return int(self._plain("pwrite", fd, data, offset))
        with self._lock:
            self._may_fail("pwrite")
            count: int = self._real.pwrite(fd, data, offset)
            self._note(Write(self._open[fd], offset, bytes(memoryview(data)[:count])))
            return count

    def _call_ftruncate(self, fd: int, length: int) -> None:
        self._on_descriptor("ftruncate", fd, lambda number: Truncate(number, length), length)

    def _call_fchmod(self, fd: int, mode: int) -> None:
        self._on_descriptor("fchmod", fd, lambda number: Chmod(number, mode), mode)

    def _call_fsync(self, fd: int) -> None:
        self._on_descriptor("fsync", fd, Sync)

    def _call_fdatasync(self, fd: int) -> None:
        self._on_descriptor("fdatasync", fd, Sync)

    def _syncfs(self, descriptor: int) -> int:
        with self._lock:
            if descriptor not in self._open:
                return int(self._real.syncfs(descriptor))
            failed = self._number_of_error("syncfs") or int(self._real.syncfs(descriptor))
            if not failed:
                self._note(SyncAll())
            return failed

    def _changing(self) -> None:
        with self._lock:
            self._may_fail("put")

    def _ioctl(self, fd: int, request: int, argument: Any = 0, mutable: bool = True) -> Any:  # noqa: ANN401  # any call
        def written(number: int) -> Write:
            return Write(number, 0, os.pread(argument, os.fstat(argument).st_size, 0))

        if request != _FICLONE:
            return self._plain("ioctl", fd, request, argument, mutable)
        self._on_descriptor("ioctl", fd, written, request, argument)
        return 0

    def _punch(self, descriptor: int, offset: int, length: int) -> int:
        with self._lock:
            number = self._open.get(descriptor)
            if number is None:
                return int(self._real.punch(descriptor, offset, length))
            failed = self._number_of_error("punch") or int(self._real.punch(descriptor, offset, length))
            if not failed:
                # Punching a hole behind the end does not make the file longer.
                end = min(offset + length, os.fstat(descriptor).st_size)
                self._note(Write(number, offset, bytes(max(end - offset, 0))))
            return failed

    # calls with names -------------------------------------------------------------------------------------------------

    def _call_truncate(self, path: Name | int, length: int) -> None:
        if isinstance(path, int):
            self._call_ftruncate(path, length)
        else:
            self._on_node("truncate", path, None, lambda number: Truncate(number, length), length)

    def _call_chmod(
        self, path: Name | int, mode: int, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> None:
        if isinstance(path, int):
            self._call_fchmod(path, mode)
        elif follow_symlinks:
            self._on_node("chmod", path, dir_fd, lambda number: Chmod(number, mode), mode)
        else:
            self._plain("chmod", path, mode, dir_fd=dir_fd, follow_symlinks=False)

    def _call_mkdir(self, path: Name, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        def node() -> Node:
            return Folder(stat.S_IMODE(os.stat(path, dir_fd=dir_fd).st_mode))

        self._on_name("mkdir", path, dir_fd, lambda inside: self._enter(inside, node()), mode)

    def _call_symlink(
        self, src: Name, dst: Name, target_is_directory: bool = False, *, dir_fd: int | None = None
    ) -> None:
        inside = self._path(dst, dir_fd)
        with self._lock:
            if inside is not None:
                self._may_fail("symlink", dst)
            self._plain("symlink", src, dst, dir_fd=dir_fd)
            if inside is not None:
                self._enter(inside, Link(os.fsdecode(src)))

    def _call_unlink(self, path: Name, *, dir_fd: int | None = None) -> None:
        self._on_name("unlink", path, dir_fd, lambda inside: self._note(Remove(*self._entry(inside))))

    _call_remove = _call_unlink

    def _call_rmdir(self, path: Name, *, dir_fd: int | None = None) -> None:
        self._on_name("rmdir", path, dir_fd, lambda inside: self._note(Remove(*self._entry(inside))))

    def _call_rename(
        self, src: Name, dst: Name, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        source, target = self._both("rename", self._path(src, src_dir_fd), self._path(dst, dst_dir_fd))
        with self._lock:
            if target is not None:
                self._may_fail("rename", src)
            self._real.rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            # rename(2) does nothing if both are names of one file.
            if target is not None and self._number(source) != self._now.find(target):
                self._note(Rename(*self._entry(source), *self._entry(target), self._number(source)))

    _call_replace = _call_rename

    def _call_link(
        self,
        src: Name,
        dst: Name,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        source, target = self._both("link", self._path(src, src_dir_fd), self._path(dst, dst_dir_fd))
        with self._lock:
            if target is not None:
                self._may_fail("link", dst)
            self._real.link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
            if target is not None:
                self._note(Enter(*self._entry(target), self._number(source)))

    # what the calls have in common ------------------------------------------------------------------------------------

    def _plain(self, name: str, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401  # any function at all
        return getattr(self._real, name)(*arguments, **keywords)

    def _on_descriptor(self, name: str, fd: int, operation: Callable[[int], Operation], *arguments: int) -> None:
        with self._lock:
            number = self._open.get(fd)
            if number is not None:
                self._may_fail(name)
            self._plain(name, fd, *arguments)
            if number is not None:
                self._note(operation(number))

    def _on_node(
        self, name: str, path: Name, dir_fd: int | None, operation: Callable[[int], Operation], argument: int
    ) -> None:
        inside = self._path(path, dir_fd, follow=True)
        keywords = {} if dir_fd is None else {"dir_fd": dir_fd}
        with self._lock:
            if inside is not None:
                self._may_fail(name, path)
            self._plain(name, path, argument, **keywords)
            if inside is not None:
                self._note(operation(self._number(inside)))

    def _on_name(
        self, name: str, path: Name, dir_fd: int | None, record: Callable[[str], object], *arguments: int
    ) -> None:
        inside = self._path(path, dir_fd)
        with self._lock:
            if inside is not None:
                self._may_fail(name, path)
            self._plain(name, path, *arguments, dir_fd=dir_fd)
            if inside is not None:
                record(inside)

    def _both(self, name: str, source: str | None, target: str | None) -> tuple[str, str | None]:
        """Return two paths that are both inside the directory, or None as the second if both are outside."""
        if (source is None) != (target is None):
            raise IncompleteRecordingError(f"os.{name} into or out of the directory can not be recorded")
        return source or "", target

    def _may_fail(self, call: str, path: Name | None = None) -> None:
        """Count a call, and raise the error of the fault if it concerns this call."""
        number = len(self.calls)
        self.calls.append(call)
        fault = self._fault
        if fault and (number >= fault.call and call in _GROWING if fault.lasting else number == fault.call):
            text = os.strerror(fault.number)
            raise OSError(fault.number, text) if path is None else OSError(fault.number, text, os.fsdecode(path))

    def _number_of_error(self, call: str) -> int:
        """Count a call that returns an error number, and return that of the fault, or 0."""
        try:
            self._may_fail(call)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def _note(self, operation: Operation) -> None:
        operation.apply(self._now)
        self.operations.append(operation)
        self.look()

    def _enter(self, inside: str, node: Node) -> int:
        number = self._next
        self._next += 1
        self._note(Enter(*self._entry(inside), number, node))
        return number

    def _entry(self, inside: str) -> tuple[int, str]:
        """Return the number of the folder and the name of a path."""
        folder, _, name = inside.rpartition("/")
        return self._number(folder), name

    def _number(self, inside: str) -> int:
        number = self._now.find(inside)
        if number is None:
            raise IncompleteRecordingError(f"made by a call that is not recorded: {inside}")
        return number

    def _path(self, path: Name, dir_fd: int | None, *, follow: bool = False) -> str | None:
        """Return a path relative to the directory; None if it lies outside."""
        # Links on the way are always followed, the last one only by calls that do so themselves.
        base = Path.cwd() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
        full = base / os.fsdecode(path)
        real = full.resolve() if follow else full.parent.resolve() / full.name
        if not real.is_relative_to(self.directory):
            return None
        return "/".join(real.relative_to(self.directory).parts)


@contextmanager
def record(directory: Path, fault: Fault | None = None, blobs: Blobs | None = None) -> Iterator[Recording]:
    """Record the changes that all threads of this process make in `directory`; `fault` makes calls fail.

    `blobs` is what is kept elsewhere, by name. The recording has its content at the time of each operation. A change of
    `MemoryBlobs` is a call that can fail.

    Raises:
        IncompleteRecordingError: something changed the directory by a call that the recording does not know.
    """
    # Only one recording can run at a time, because the functions of `os` belong to the whole process.
    recording = Recording(directory, fault, blobs)
    recording.look()
    recording.start()
    try:
        yield recording
    finally:
        recording.stop()
        recording.look()
    recording.check()
