"""Records every call by which this process changes a directory, and makes some of them fail.

A recording replaces functions of `os`, ioctl(FICLONE), and the calls that `backy.durable` adds to them, while it
runs. It sees Python code in all threads, but neither other processes nor libraries written in C. It does all operations
in memory as well, and compares the result with the directory in the end: a change that it did not see is an error.
A clone is recorded as a write of all its content, a hole as a write of zeroes.
"""

import errno
import fcntl
import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final, TypeVar
from unittest.mock import patch

from backy import durable
from backy.testing import memory
from backy.testing.tree import ELSEWHERE, Chmod, Entry, Naming, Node, Operation, Sync, Tree, Truncate, Write

Name = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Blobs = Mapping[str, bytes]
Concerned = TypeVar("Concerned", int, str)
_FICLONE: Final = 0x40049409
# What other calls with a descriptor or the path of a file do.
_CHANGES: Final = {Truncate: ("truncate", "ftruncate"), Chmod: ("chmod", "fchmod"), Sync: ("fsync", "fdatasync")}
# Calls that may need space, and so fail on a full disk.
_GROWING: Final = {"open", "write", "pwrite", *_CHANGES[Truncate], "mkdir", "symlink", "link", "ioctl", "fallocate64"}


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
        self.before = Tree.read(directory, blobs)
        """The directory, and what is kept elsewhere, at the beginning of the recording."""
        self.operations: list[Operation] = []
        """The operations in order."""
        self.calls: list[str] = []
        """The names of all calls that could fail, with the one that did."""
        self._fault = fault
        self._elsewhere = {} if blobs is None else blobs
        self._now = self.before.copy()
        self._numbers = itertools.count(len(self.before.nodes))
        self._open: dict[int, int] = {}
        self._lock = threading.RLock()
        others = {name: partial(durable.c_call, name) for name in ("syncfs", "fallocate64")}
        self._real = SimpleNamespace(**vars(os), **others, ioctl=fcntl.ioctl)

    def replacements(self) -> Iterator[tuple[ModuleType, str, Callable[..., Any]]]:
        """Yield the functions to replace, and what takes their place: for `os.NAME` it is often called `_call_NAME`."""
        for name in dir(self):
            if name.startswith("_call_"):
                yield os, name.removeprefix("_call_"), getattr(self, name)
        for kind, names in _CHANGES.items():
            for name in names:
                yield os, name, partial(self._change, name, kind)
        yield os, "mkdir", partial(self._name, "mkdir", self._entered)
        for name in ("unlink", "remove", "rmdir"):
            yield os, name, partial(self._name, name, self._removed)
        yield from ((fcntl, "ioctl", self._ioctl), (durable, "c_call", self._c_call))
        yield memory, "changing", self._changing

    def look(self) -> None:
        """Note what was changed elsewhere: all of it at once, and durable before anything else happens."""
        seen, now, numbers = self._now.blobs, dict(self._elsewhere), [ELSEWHERE]
        for name in sorted({name for name, _ in seen.items() ^ now.items()}):
            if name in now:
                numbers.append(number := next(self._numbers))
                self._add(Naming(number, (ELSEWHERE, name), node=Node(stat.S_IFREG)))
                self._add(Write(number, 0, now[name]))
            else:
                self._add(Naming(None, former=(ELSEWHERE, name)))
        for number in numbers if now != seen else ():
            self._add(Sync(number))

    def check(self) -> None:
        """Raise IncompleteRecordingError if the directory is not what the operations have made of `before`."""
        if missed := self._now.differences(Tree.read(self.directory)):
            raise IncompleteRecordingError(f"changed by a call that is not recorded: {', '.join(missed)}")

    # calls with descriptors -------------------------------------------------------------------------------------------

    def _call_open(self, path: Name, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        inside = self._path(path, dir_fd)
        if inside is None:
            return int(self._real.open(path, flags, mode, dir_fd=dir_fd))
        with self._lock:
            # Only calls that change something count.
            if flags & os.O_TRUNC or (flags & os.O_CREAT and self._now.find(inside) is None):
                self._may_fail("open", path)
            descriptor = int(self._real.open(path, flags, mode, dir_fd=dir_fd))
            # The kernel knows which file it is, whatever links the path has.
            inside = self._path(f"/proc/self/fd/{descriptor}", None, follow=True)
            number = None if inside is None else self._now.find(inside)
            if inside is not None and number is None and flags & os.O_CREAT:
                self._note(entered := self._entered(inside))
                number = entered.number
            elif number is not None and flags & os.O_TRUNC:
                self._note(Truncate(number, 0))
            if number is not None:
                self._open[descriptor] = number
            return descriptor

    def _call_close(self, fd: int) -> None:
        # before others can get the same descriptor
        self._open.pop(fd, None)
        self._real.close(fd)

    def _call_write(self, fd: int, data: bytes | memoryview, *place: int) -> int:
        name = "pwrite" if place else "write"
        call: Callable[..., int] = getattr(self._real, name)
        if fd not in self._open:
            return call(fd, data, *place)
        with self._lock:
            self._may_fail("write into allocated space" if not place and _has_room(fd, len(data)) else name)
            count = call(fd, data, *place)
            # The position moves with the write, also of a descriptor opened with O_APPEND.
            offset = place[0] if place else os.lseek(fd, 0, os.SEEK_CUR) - count
            self._note(Write(self._open[fd], offset, bytes(memoryview(data)[:count])))
            return count

    _call_pwrite = _call_write

    def _c_call(self, name: str, descriptor: int, *arguments: int) -> None:
        def done(number: int) -> Operation:
            if name == "syncfs":
                return Sync(None)
            _, offset, length = arguments
            # Punching a hole behind the end does not make the file longer.
            end = min(offset + length, os.fstat(descriptor).st_size)
            return Write(number, offset, bytes(max(end - offset, 0)))

        self._do(name, self._open.get(descriptor), done, descriptor, *arguments)

    def _changing(self) -> None:
        with self._lock:
            self._may_fail("put")

    def _ioctl(self, fd: int, request: int, argument: Any = 0, mutable: bool = True) -> Any:  # noqa: ANN401  # any call
        def cloned(number: int) -> Write:
            return Write(number, 0, os.pread(argument, os.fstat(argument).st_size, 0))

        concerned = self._open.get(fd) if request == _FICLONE else None
        return self._do("ioctl", concerned, cloned, fd, request, argument, mutable)

    # calls with names -------------------------------------------------------------------------------------------------

    def _change(self, name: str, kind: Callable[..., Operation], file: Name | int, *to: int, **at: int | None) -> None:
        self._do(name, self._file(file, at.get("dir_fd")), lambda number: kind(number, *to), file, *to, **at)

    def _name(self, name: str, done: Callable[[str], Operation], path: Name, *more: int, **at: int | None) -> None:
        self._do(name, self._path(path, at.get("dir_fd")), done, path, *more, **at)

    def _call_symlink(self, src: Name, dst: Name, *_: bool, dir_fd: int | None = None, **_keywords: bool) -> None:
        self._do("symlink", self._path(dst, dir_fd), self._entered, src, dst, dir_fd=dir_fd)

    def _call_rename(self, src: Name, dst: Name, **folders: int | None) -> None:
        source, target = self._both(src, dst, folders)

        def renamed(to: str) -> Naming | None:
            number = self._number(source)
            # rename(2) does nothing if both are names of one file.
            return None if number == self._now.find(to) else Naming(number, self._entry(to), self._entry(source))

        self._do("rename", target, renamed, src, dst, **folders)

    _call_replace = _call_rename

    def _call_link(self, src: Name, dst: Name, **keywords: int | None) -> None:
        source, target = self._both(src, dst, keywords)
        self._do("link", target, lambda target: Naming(self._number(source), self._entry(target)), src, dst, **keywords)

    # what the calls have in common ------------------------------------------------------------------------------------

    def _do(
        self, name: str, at: Concerned | None, done: Callable[[Concerned], Operation | None], *of: object, **by: object
    ) -> Any:  # noqa: ANN401  # what any function returns
        """Call a function; if it works `at` a node or a path inside, count it, and note what it has `done`."""
        call = getattr(self._real, name)
        if at is None:
            return call(*of, **by)
        with self._lock:
            self._may_fail(name, of[0])
            result = call(*of, **by)
            self._note(done(at))
            return result

    def _both(self, src: Name, dst: Name, folders: Mapping[str, int | None]) -> tuple[str, str | None]:
        """Return two paths that are inside the directory, or None as the second: then `check` finds what it changed."""
        source, target = self._path(src, folders.get("src_dir_fd")), self._path(dst, folders.get("dst_dir_fd"))
        return source or "", None if source is None else target

    def _may_fail(self, call: str, about: object = None) -> None:
        """Count a call, and raise the error of the fault if it concerns this call."""
        number = len(self.calls)
        self.calls.append(call)
        fault = self._fault
        if fault and (number >= fault.call and call in _GROWING if fault.lasting else number == fault.call):
            error = OSError(fault.number, os.strerror(fault.number))
            # calls with a descriptor do not know the name
            if isinstance(about, str | bytes | os.PathLike):
                error.filename = os.fsdecode(about)
            raise error

    def _note(self, operation: Operation | None) -> None:
        if operation is not None:
            self.look()
            self._add(operation)

    def _add(self, operation: Operation) -> None:
        operation.apply(self._now)
        self.operations.append(operation)

    def _entered(self, inside: str) -> Naming:
        """Return the operation that has just made what is at a path."""
        return Naming(next(self._numbers), self._entry(inside), node=Node.at(self.directory / inside))

    def _removed(self, inside: str) -> Naming:
        return Naming(None, former=self._entry(inside))

    def _entry(self, inside: str) -> Entry:
        folder, _, name = inside.rpartition("/")
        return self._number(folder), name

    def _file(self, path: Name | int, dir_fd: int | None) -> int | None:
        """Return the number of a file that is open as a descriptor or has a path; None if it lies outside."""
        if isinstance(path, int):
            return self._open.get(path)
        inside = self._path(path, dir_fd, follow=True)
        return None if inside is None else self._now.find(inside)

    def _number(self, inside: str) -> int:
        number = self._now.find(inside)
        if number is None:
            raise IncompleteRecordingError(f"made by a call that is not recorded: {inside}")
        return number

    def _path(self, path: Name, dir_fd: int | None, *, follow: bool = False) -> str | None:
        """Return a path relative to the directory; None if it lies outside."""
        # Links on the way are always followed, the last one only by calls that do so themselves.
        full = (Path.cwd() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()) / os.fsdecode(path)
        real = full.resolve() if follow else full.parent.resolve() / full.name
        return "/".join(real.relative_to(self.directory).parts) if real.is_relative_to(self.directory) else None


@contextmanager
def record(directory: Path, fault: Fault | None = None, blobs: Blobs | None = None) -> Iterator[Recording]:
    """Record the changes that all threads of this process make in `directory`; `fault` makes calls fail.

    `blobs` is what is kept elsewhere, by name. What was changed there is noted before the next operation. A change of
    `MemoryBlobs` is a call that can fail.

    Raises:
        IncompleteRecordingError: something changed the directory by a call that the recording does not know.
    """
    # Only one recording can run at a time, because the functions of `os` belong to the whole process.
    recording = Recording(directory, fault, blobs)
    try:
        with ExitStack() as replaced:
            for replacement in recording.replacements():
                replaced.enter_context(patch.object(*replacement))
            yield recording
    finally:
        recording.look()
    recording.check()


def _has_room(descriptor: int, length: int) -> bool:
    """Tell whether a file has `length` bytes allocated from the place on where the next write goes."""
    status = os.fstat(descriptor)
    appending = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
    position = status.st_size if appending else os.lseek(descriptor, 0, os.SEEK_CUR)
    return position + length <= status.st_blocks * 512
