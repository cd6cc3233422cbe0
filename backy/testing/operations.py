"""What a program can do to a directory, one class an operation, each of which can be done again to a `Tree`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

from backy.testing.tree import File, Folder, Node, Tree


class Operation(Protocol):
    """One call that changed something or brought it to the disk."""

    @property
    def touches(self) -> tuple[int, ...]:
        """The nodes that it changes: to sync one of them makes the operation durable."""

    def apply(self, tree: Tree) -> None:
        """Do it to `tree`; what it needs and does not find there leaves the tree as it is."""


@dataclass(frozen=True)
class Enter:
    """Give a node a name: open with O_CREAT, mkdir, symlink, or link, which makes no node of its own."""

    folder: int
    name: str
    number: int
    node: Node | None = None

    @property
    def touches(self) -> tuple[int, ...]:
        """The folder."""
        return (self.folder,)

    def make(self, tree: Tree) -> None:
        """Make the node alone."""
        if self.node is not None and self.number not in tree.nodes:
            tree.nodes[self.number] = Folder(self.node.mode) if isinstance(self.node, Folder) else self.node

    def apply(self, tree: Tree) -> None:
        """Make the node and give it its name."""
        self.make(tree)
        tree.folder(self.folder).entries[self.name] = self.number


@dataclass(frozen=True)
class Remove:
    """Take a name away: unlink, rmdir."""

    folder: int
    name: str

    @property
    def touches(self) -> tuple[int, ...]:
        """The folder."""
        return (self.folder,)

    def apply(self, tree: Tree) -> None:
        """Take it away."""
        tree.folder(self.folder).entries.pop(self.name, None)


@dataclass(frozen=True)
class Rename:
    """Move a name, in place of what has the new one: one step, whatever happens."""

    folder: int
    name: str
    to_folder: int
    to_name: str
    number: int

    @property
    def touches(self) -> tuple[int, ...]:
        """Both folders: a journal has either both halves or none."""
        return self.folder, self.to_folder

    def apply(self, tree: Tree) -> None:
        """Move it."""
        source = tree.folder(self.folder).entries
        if source.get(self.name) == self.number:
            del source[self.name]
        tree.folder(self.to_folder).entries[self.to_name] = self.number


@dataclass(frozen=True)
class Change(ABC):
    """An operation on a file's own content or mode."""

    number: int

    @property
    def touches(self) -> tuple[int, ...]:
        """The file."""
        return (self.number,)

    def apply(self, tree: Tree) -> None:
        """Do it."""
        node = tree.nodes[self.number]
        tree.nodes[self.number] = self.changed(node)

    @abstractmethod
    def changed(self, node: Node) -> Node:
        """Return what it makes of the node."""


@dataclass(frozen=True)
class Write(Change):
    """Write into a file."""

    offset: int
    content: bytes

    def changed(self, node: Node) -> Node:
        """Lay the content over."""
        if not isinstance(node, File) or not self.content:
            return node
        old = node.content.ljust(self.offset, b"\0")
        end = self.offset + len(self.content)
        return replace(node, content=old[: self.offset] + self.content + old[end:])


@dataclass(frozen=True)
class Truncate(Change):
    """Set a file's length."""

    length: int

    def changed(self, node: Node) -> Node:
        """Cut it or fill it with zeroes."""
        if not isinstance(node, File):
            return node
        return replace(node, content=node.content[: self.length].ljust(self.length, b"\0"))


@dataclass(frozen=True)
class Chmod(Change):
    """Set the mode of a file or a folder."""

    mode: int

    def changed(self, node: Node) -> Node:
        """Set it."""
        return node if not isinstance(node, File | Folder) else replace(node, mode=self.mode)


@dataclass(frozen=True)
class Sync:
    """Bring a file or a folder to the disk: fsync, fdatasync."""

    number: int
    touches: tuple[int, ...] = ()

    def apply(self, tree: Tree) -> None:
        """Change nothing."""


@dataclass(frozen=True)
class SyncAll:
    """Bring the file system to the disk: syncfs, sync."""

    touches: tuple[int, ...] = ()

    def apply(self, tree: Tree) -> None:
        """Change nothing."""
