"""Copies files out of a guest's file system: only below the target, and never through a link."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from backy.durable import closed_at_end, write_all
from backy.errors import BackyError
from backy.guest.filesystem import Node
from backy.guest.guard import GuestError
from backy.text.phrases import counted

log = logging.getLogger(__name__)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Every level keeps a descriptor open, and honest trees are not that deep.
_DEEPEST = 200
"""Most levels of folders that are copied."""


class Copy:
    """Copies files and folders. Counts those that can not be copied, and copies the rest."""

    def __init__(self) -> None:
        self.copied = 0
        self.problems: list[str] = []
        self._above: set[int] = set()

    def to(self, node: Node, target: Path) -> None:
        """Copy `node` into the folder `target`, or under the name `target` if that does not exist.

        Raises:
            GuestError: some files were not copied; the rest was.
            OSError: the target can not be made, or exists already.
        """
        into = target.is_dir()
        folder, name = (target, node.name) if into else (target.absolute().parent, target.name)
        if into and name == "/":
            raise GuestError("the root has no name: give one that is not there yet")
        with closed_at_end(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as descriptor:
            self._copy(node, descriptor, name, str(folder / name))
        if self.problems:
            raise GuestError(
                f"{counted(len(self.problems), 'file was', 'files were')} not copied, "
                f"{counted(self.copied, 'was', 'were')}; {self.problems[0]}"
            )

    def _copy(self, node: Node, folder: int, name: str, shown: str) -> None:
        try:
            if node.kind == stat.S_IFDIR:
                self._folder(node, folder, name, shown)
            elif node.kind == stat.S_IFREG:
                _file(node, folder, name)
            elif node.kind == stat.S_IFLNK:
                os.symlink(node.target, name, dir_fd=folder)
            else:
                log.warning("%s is neither a file, a folder nor a link: it is left out", shown)
                return
            self.copied += 1
        except (BackyError, OSError) as error:
            cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.problems.append(f"{shown}: {cause}")
            log.error("%s", self.problems[-1])  # noqa: TRY400  # the error's text says all

    def _folder(self, node: Node, folder: int, name: str, shown: str) -> None:
        # A hostile guest can make a folder that contains itself.
        if node.number in self._above or len(self._above) >= _DEEPEST:
            raise GuestError("folders lead in circles")
        os.mkdir(name, 0o700, dir_fd=folder)
        descriptor = os.open(name, _FOLDER, dir_fd=folder)
        self._above.add(node.number)
        try:
            for child in node.children():
                self._copy(child, descriptor, child.name, f"{shown}/{child.name}")
            # Last: the mode may forbid writing, and each file changes the time. No set-user-id bits of a guest.
            os.fchmod(descriptor, node.mode & 0o777)
            os.utime(descriptor, ns=(node.modified, node.modified))
        finally:
            self._above.remove(node.number)
            os.close(descriptor)


def _file(node: Node, folder: int, name: str) -> None:
    """Copy a file with its holes, mode and time. Remove it again if it can not be copied as a whole."""
    with closed_at_end(os.open(name, _NEW, 0o600, dir_fd=folder)) as descriptor:
        try:
            # Ranges that are not written stay holes.
            os.ftruncate(descriptor, node.size)
            for extent in node.extents():
                if extent.data:
                    for offset, data in node.read(extent):
                        os.lseek(descriptor, offset, os.SEEK_SET)
                        write_all(descriptor, data)
            os.fchmod(descriptor, node.mode & 0o777)
            os.utime(descriptor, ns=(node.modified, node.modified))
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise


def stream(node: Node, descriptor: int) -> None:
    """Write a file's content to `descriptor`, holes as zeroes; raise GuestError if it can not be read."""
    if node.kind != stat.S_IFREG:
        raise GuestError(f"'{node.name}' is no file")
    for extent in node.extents():
        if extent.data:
            for _, data in node.read(extent):
                write_all(descriptor, data)
        else:
            for offset in range(0, extent.length, 2**20):
                write_all(descriptor, bytes(min(2**20, extent.length - offset)))
