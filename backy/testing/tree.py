"""A directory as plain data: names, contents, modes and links, but neither times nor owners."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = 0
"""The number of the directory itself."""


@dataclass(frozen=True)
class File:
    """A file; any number of names may lead to it."""

    mode: int
    content: bytes = b""


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Folder:
    """A folder: the numbers of its nodes, by their names."""

    mode: int
    entries: dict[str, int] = field(default_factory=dict)


Node = File | Link | Folder


class Tree:
    """The nodes of a directory, by numbers that are never used again."""

    def __init__(self, mode: int = 0o700) -> None:
        self.nodes: dict[int, Node] = {ROOT: Folder(mode)}

    @classmethod
    def read(cls, directory: Path) -> Tree:
        """Take up what is in `directory`.

        Raises:
            ValueError: there is something in it that is neither a file nor a folder nor a symbolic link.
        """
        tree = cls(stat.S_IMODE(directory.stat().st_mode))
        tree._read(directory, ROOT, {})
        return tree

    def _read(self, directory: Path, folder: int, known: dict[tuple[int, int], int]) -> None:
        for path in sorted(directory.iterdir()):
            status = path.lstat()
            key = status.st_dev, status.st_ino
            number = known.setdefault(key, len(self.nodes))
            if number not in self.nodes:
                self.nodes[number] = _node(path, status.st_mode)
            self.folder(folder).entries[path.name] = number
            if path.is_dir() and not path.is_symlink():
                self._read(path, number, known)

    def write(self, directory: Path) -> None:
        """Make `directory`, which must not exist, with all that the tree has."""
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
                target.write_bytes(node.content)
                target.chmod(node.mode)
            else:
                target.mkdir()
                folders.append((target, node.mode))
            written[number] = target
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
        """Return the number of what lies at `path`, which has slashes and no links in it; None if nothing does."""
        number: int | None = ROOT
        for name in path.split("/") if path else []:
            node = self.nodes[number] if number is not None else None
            number = node.entries.get(name) if isinstance(node, Folder) else None
        return number

    def walk(self, folder: int = ROOT, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield path and number of all there is, folders before what is in them."""
        for name, number in sorted(self.folder(folder).entries.items()):
            yield prefix + name, number
            if isinstance(self.nodes[number], Folder):
                yield from self.walk(number, f"{prefix}{name}/")

    def listing(self) -> dict[str, tuple[str, int, bytes]]:
        """Return all there is by path, as (first path of the same node, mode, content): equal for equal trees."""
        first: dict[int, str] = {}
        found = {"": ("", self.folder(ROOT).mode, b"")}
        for path, number in self.walk():
            node = self.nodes[number]
            origin = first.setdefault(number, path)
            if isinstance(node, File):
                found[path] = origin, node.mode, node.content
            elif isinstance(node, Link):
                found[path] = origin, stat.S_IFLNK, os.fsencode(node.target)
            else:
                found[path] = origin, stat.S_IFDIR | node.mode, b""
        return found

    def differences(self, other: Tree) -> list[str]:
        """Return the paths at which two trees differ."""
        mine, others = self.listing(), other.listing()
        return sorted(path for path in mine.keys() | others.keys() if mine.get(path) != others.get(path))


def _node(path: Path, mode: int) -> Node:
    if stat.S_ISREG(mode):
        return File(stat.S_IMODE(mode), path.read_bytes())
    if stat.S_ISLNK(mode):
        return Link(str(path.readlink()))
    if stat.S_ISDIR(mode):
        return Folder(stat.S_IMODE(mode))
    raise ValueError(f"{path} is neither a file nor a folder nor a symbolic link")
