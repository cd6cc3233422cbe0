"""A directory as plain data: names, contents, modes and links, without times and owners."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = 0
"""The number of the directory itself."""

Entry = tuple[int, str]
"""The number of a folder, and a name in it."""


# frozen, so that copies of a tree can share them
@dataclass(frozen=True)
class Node:
    """A file with any number of names, a folder, or a symbolic link."""

    mode: int
    """Type and permissions, as `st_mode` has them."""
    content: bytes = b""
    """What is in a file, or where a link leads."""


class Tree:
    """The nodes of a directory by number, and their names. A number is never used for a second node."""

    def __init__(self, nodes: dict[int, Node], names: dict[Entry, int]) -> None:
        self.nodes = nodes
        self.names = names

    @classmethod
    def read(cls, directory: Path) -> Tree:
        """Return the content of `directory`.

        Raises:
            ValueError: it has something that is neither a file nor a folder nor a symbolic link.
        """
        tree = cls({ROOT: Node(directory.stat().st_mode)}, {})
        tree._read(directory, ROOT, {})
        return tree

    def _read(self, directory: Path, folder: int, known: dict[tuple[int, int], int]) -> None:
        for path in sorted(directory.iterdir()):
            status = path.lstat()
            # Names with one inode are hard links to one node.
            number = known.setdefault((status.st_dev, status.st_ino), len(self.nodes))
            if number not in self.nodes:
                self.nodes[number] = node_at(path)
            self.names[folder, path.name] = number
            if stat.S_ISDIR(status.st_mode):
                self._read(path, number, known)

    def write(self, directory: Path) -> None:
        """Write the tree to `directory`, which must not exist."""
        written: dict[int, Path] = {}
        for path, number in self.walk():
            node, target = self.nodes[number], directory / path
            if number in written:
                target.hardlink_to(written[number])
            elif stat.S_ISLNK(node.mode):
                target.symlink_to(os.fsdecode(node.content))
            elif stat.S_ISDIR(node.mode):
                target.mkdir()
            else:
                target.write_bytes(node.content)
            written.setdefault(number, target)
        # Last, because some files and folders are read-only.
        for number, target in written.items():
            if not target.is_symlink():
                target.chmod(stat.S_IMODE(self.nodes[number].mode))

    def copy(self) -> Tree:
        """Return a tree that can be changed without changing this one."""
        return Tree(dict(self.nodes), dict(self.names))

    def find(self, path: str) -> int | None:
        """Return the number of the node at `path`; None if there is none. The path must not lead through links."""
        number: int | None = ROOT
        for name in path.split("/") if path else ():
            number = None if number is None else self.names.get((number, name))
        return number

    def walk(self) -> Iterator[tuple[str, int]]:
        """Yield path and number of all nodes, a folder before its entries, from the directory itself on."""
        entries = defaultdict[int, list[tuple[str, int]]](list)
        for (folder, name), number in sorted(self.names.items()):
            entries[folder].append((name, number))

        def below(path: str, number: int) -> Iterator[tuple[str, int]]:
            yield path, number
            for name, entry in entries[number]:
                yield from below(f"{path}/{name}" if path else name, entry)

        return below("", ROOT)

    def listing(self) -> dict[str, tuple[str, Node]]:
        """Return all nodes by path, as (first path of the node, node). Equal trees have equal listings."""
        # Numbers differ from tree to tree, so hard links are told by the first of their paths.
        first: dict[int, str] = {}
        return {path: (first.setdefault(number, path), self.nodes[number]) for path, number in self.walk()}

    def differences(self, other: Tree) -> list[str]:
        """Return the paths at which two trees differ."""
        mine, others = self.listing(), other.listing()
        return sorted(path for path in mine.keys() | others.keys() if mine.get(path) != others.get(path))


def node_at(path: Path) -> Node:
    """Return the node that has this path."""
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        return Node(mode, path.read_bytes())
    if stat.S_ISLNK(mode):
        return Node(mode, os.fsencode(path.readlink()))
    # backy makes no other kinds, and a socket or device can not be written again from plain data.
    if not stat.S_ISDIR(mode):
        raise ValueError(f"{path} is neither a file nor a folder nor a symbolic link")
    return Node(mode)
