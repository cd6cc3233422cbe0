"""Operations on a directory, one class for each. All of them can be applied to a `Tree`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from backy.testing.tree import File, Folder, Node, Tree


class Operation(Protocol):
    """A call that changed something or synced it."""

    @property
    def touches(self) -> tuple[int, ...]:
        """Numbers of the nodes that it changes. Syncing one of them makes the operation durable."""

    def apply(self, tree: Tree) -> None:
        """Apply the operation to `tree`. Leave the tree as it is if it lacks the node or the name."""


@dataclass(frozen=True)
class Enter:
    """Name a node: open with O_CREAT, mkdir, symlink, or link."""

    folder: int
    name: str
    number: int
    node: Node | None = None
    """The new node; None if there is one already, as for link."""

    @property
    def touches(self) -> tuple[int, ...]:
        """The folder."""
        return (self.folder,)

    def make(self, tree: Tree) -> None:
        """Make the node without its name."""
        if self.node is not None and self.number not in tree.nodes:
            # A folder gets its own dict of entries, because trees must not share what can change.
            tree.nodes[self.number] = Folder(self.node.mode) if isinstance(self.node, Folder) else self.node

    def apply(self, tree: Tree) -> None:
        """Make the node and name it."""
        self.make(tree)
        tree.folder(self.folder).entries[self.name] = self.number


@dataclass(frozen=True)
class Remove:
    """Remove a name: unlink, rmdir."""

    folder: int
    name: str

    @property
    def touches(self) -> tuple[int, ...]:
        """The folder."""
        return (self.folder,)

    def apply(self, tree: Tree) -> None:
        """Remove the name."""
        # It may not be there: the operation that added it can be lost in a crash that this one survived.
        tree.folder(self.folder).entries.pop(self.name, None)


@dataclass(frozen=True)
class Rename:
    """Rename a node, in place of another one with the new name, in one step."""

    folder: int
    name: str
    to_folder: int
    to_name: str
    number: int

    @property
    def touches(self) -> tuple[int, ...]:
        """Both folders."""
        # A journal has either both halves or none, so syncing one folder makes both durable.
        return self.folder, self.to_folder

    def apply(self, tree: Tree) -> None:
        """Rename the node."""
        source = tree.folder(self.folder).entries
        # After lost operations the old name may belong to another node, which stays.
        if source.get(self.name) == self.number:
            del source[self.name]
        tree.folder(self.to_folder).entries[self.to_name] = self.number


@dataclass(frozen=True)
class Change(ABC):
    """An operation on the content or the mode of a file."""

    number: int

    @property
    def touches(self) -> tuple[int, ...]:
        """The file."""
        return (self.number,)

    def apply(self, tree: Tree) -> None:
        """Apply the change."""
        apply_changes(tree, self.number, [self])

    @abstractmethod
    def edit(self, content: bytearray) -> None:
        """Change the content of a file."""


@dataclass(frozen=True)
class Write(Change):
    """Write into a file."""

    offset: int
    content: bytes

    def edit(self, content: bytearray) -> None:
        """Put the content at its offset."""
        # Writing nothing behind the end does not make a file longer.
        if self.content:
            content.extend(bytes(max(self.offset - len(content), 0)))
            content[self.offset : self.offset + len(self.content)] = self.content


@dataclass(frozen=True)
class Truncate(Change):
    """Set a file's length."""

    length: int

    def edit(self, content: bytearray) -> None:
        """Cut the content or fill it up with zeroes."""
        del content[self.length :]
        content.extend(bytes(self.length - len(content)))


@dataclass(frozen=True)
class Chmod(Change):
    """Set the mode of a file or a folder."""

    mode: int

    def edit(self, content: bytearray) -> None:
        """Leave the content as it is."""


def apply_changes(tree: Tree, number: int, changes: Sequence[Change]) -> None:
    """Apply changes of one node in their order."""
    node = tree.nodes[number]
    modes = [change.mode for change in changes if isinstance(change, Chmod)]
    if modes and isinstance(node, File | Folder):
        node = replace(node, mode=modes[-1])
    if isinstance(node, File) and len(modes) < len(changes):
        # Once for all of them: a file is copied to be changed, and an image is large.
        content = bytearray(node.content)
        for change in changes:
            change.edit(content)
        node = replace(node, content=bytes(content))
    tree.nodes[number] = node


@dataclass(frozen=True)
class Sync:
    """Sync a file or a folder: fsync, fdatasync."""

    number: int
    touches: tuple[int, ...] = ()

    def apply(self, tree: Tree) -> None:
        """Change nothing."""


@dataclass(frozen=True)
class SyncAll:
    """Sync the whole file system: syncfs, sync."""

    touches: tuple[int, ...] = ()

    def apply(self, tree: Tree) -> None:
        """Change nothing."""
