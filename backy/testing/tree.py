"""A directory as plain data: names, contents, modes and links, without times and owners."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = 0
"""The number of the directory itself."""


# Nodes are frozen, so that copies of a tree can share them; only the entries of folders are copied.
@dataclass(frozen=True)
class File:
    """A file with any number of names."""

    mode: int
    content: bytes = b""


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Folder:
    """A folder: the numbers of its nodes by name."""

    mode: int
    entries: dict[str, int] = field(default_factory=dict)


Node = File | Link | Folder


class Tree:
    """The nodes of a directory by number. A number is never used for a second node."""

    def __init__(self, mode: int = 0o700) -> None:
        self.nodes: dict[int, Node] = {ROOT: Folder(mode)}

    @classmethod
    def read(cls, directory: Path) -> Tree:
        """Return the content of `directory`.

        Raises:
            ValueError: it has something that is neither a file nor a folder nor a symbolic link.
        """
        tree = cls(stat.S_IMODE(directory.stat().st_mode))
        tree._read(directory, ROOT, {})
        return tree

    def _read(self, directory: Path, folder: int, known: dict[tuple[int, int], int]) -> None:
        for path in sorted(directory.iterdir()):
            status = path.lstat()
            # Names with one inode are hard links to one node.
            key = status.st_dev, status.st_ino
            number = known.setdefault(key, len(self.nodes))
            if number not in self.nodes:
                self.nodes[number] = _node(path, status.st_mode)
            self.folder(folder).entries[path.name] = number
            if path.is_dir() and not path.is_symlink():
                self._read(path, number, known)

    def write(self, directory: Path) -> None:
        """Write the tree to `directory`, which must not exist."""
        written: dict[int, Path] = {}
        directory.mkdir()
        folders = [(directory, self.folder(ROOT).mode)]
        for path, number in self.walk():
            node = self.nodes[number]
            target = directory / path
            if number in written:
                target.hardlink_to(written[number])
            elif isinstance(node, Link):
                target.symlink_to(node.target)
            elif isinstance(node, File):
                # The mode comes second, because the file may be read-only.
                target.write_bytes(node.content)
                target.chmod(node.mode)
            else:
                target.mkdir()
                folders.append((target, node.mode))
            written[number] = target
        # Last, because some folders are read-only.
        for folder, mode in folders:
            folder.chmod(mode)

    def copy(self) -> Tree:
        """Return a tree that can be changed without changing this one."""
        tree = Tree()
        tree.nodes = {
            number: replace(node, entries=dict(node.entries)) if isinstance(node, Folder) else node
            for number, node in self.nodes.items()
        }
        return tree

    def folder(self, number: int) -> Folder:
        """Return a node that must be a folder."""
        node = self.nodes[number]
        if not isinstance(node, Folder):
            raise NotADirectoryError(number)
        return node

    def find(self, path: str) -> int | None:
        """Return the number of the node at `path`; None if there is none. The path must not lead through links."""
        number: int | None = ROOT
        for name in path.split("/") if path else []:
            node = self.nodes[number] if number is not None else None
            number = node.entries.get(name) if isinstance(node, Folder) else None
        return number

    def walk(self, folder: int = ROOT, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield path and number of all nodes, a folder before its entries."""
        for name, number in sorted(self.folder(folder).entries.items()):
            yield prefix + name, number
            if isinstance(self.nodes[number], Folder):
                yield from self.walk(number, f"{prefix}{name}/")

    def listing(self) -> dict[str, tuple[str, int, bytes]]:
        """Return all nodes by path, as (first path of the node, mode, content). Equal trees have equal listings."""
        # Numbers differ from tree to tree, so hard links are told by the first of their paths.
        first: dict[int, str] = {}
        found = {"": ("", self.folder(ROOT).mode, b"")}
        for path, number in self.walk():
            node = self.nodes[number]
            first_path = first.setdefault(number, path)
            if isinstance(node, File):
                found[path] = first_path, node.mode, node.content
            elif isinstance(node, Link):
                found[path] = first_path, stat.S_IFLNK, os.fsencode(node.target)
            else:
                found[path] = first_path, stat.S_IFDIR | node.mode, b""
        return found

    def differences(self, other: Tree) -> list[str]:
        """Return the paths at which two trees differ."""
        mine, others = self.listing(), other.listing()
        return sorted(path for path in mine.keys() | others.keys() if mine.get(path) != others.get(path))


def _node(path: Path, mode: int) -> Node:
    # backy makes no other kinds, and a socket or device can not be written again from plain data.
    if stat.S_ISREG(mode):
        return File(stat.S_IMODE(mode), path.read_bytes())
    if stat.S_ISLNK(mode):
        return Link(str(path.readlink()))
    if stat.S_ISDIR(mode):
        return Folder(stat.S_IMODE(mode))
    raise ValueError(f"{path} is neither a file nor a folder nor a symbolic link")


def has_room(descriptor: int, length: int) -> bool:
    """Tell whether a file has `length` bytes allocated from the place on where the next write goes."""
    status = os.fstat(descriptor)
    appending = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
    position = status.st_size if appending else os.lseek(descriptor, 0, os.SEEK_CUR)
    return position + length <= status.st_blocks * 512
