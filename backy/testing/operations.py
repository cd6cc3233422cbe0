"""Operations on a directory, one class for each. All of them can be applied to a `Tree`."""

import stat
from collections.abc import Sequence
from dataclasses import dataclass

from backy.testing.tree import Entry, Node, Tree


@dataclass(frozen=True)
class Operation:
    """A call that changed something or synced it."""

    @property
    def touches(self) -> tuple[int, ...]:
        """Numbers of the nodes that it changes. Syncing one of them makes the operation durable."""
        return ()

    def apply(self, tree: Tree) -> None:
        """Apply the operation to `tree`. Leave the tree as it is if it lacks the node or the name."""


@dataclass(frozen=True)
class Enter(Operation):
    """Name a node: open with O_CREAT, mkdir, symlink, or link."""

    entry: Entry
    number: int
    node: Node | None = None
    """The new node; None if there is one already, as for link."""

    @property
    def touches(self) -> tuple[int, ...]:
        """The folder."""
        return (self.entry[0],)

    def make(self, tree: Tree) -> None:
        """Make the node without its name."""
        if self.node is not None:
            tree.nodes.setdefault(self.number, self.node)

    def apply(self, tree: Tree) -> None:
        """Make the node and name it."""
        self.make(tree)
        tree.names[self.entry] = self.number


@dataclass(frozen=True)
class Remove(Operation):
    """Remove a name: unlink, rmdir."""

    entry: Entry

    @property
    def touches(self) -> tuple[int, ...]:
        """The folder."""
        return (self.entry[0],)

    def apply(self, tree: Tree) -> None:
        """Remove the name."""
        # It may not be there: the operation that added it can be lost in a crash that this one survived.
        tree.names.pop(self.entry, None)


@dataclass(frozen=True)
class Rename(Operation):
    """Rename a node, in place of another one with the new name, in one step."""

    former: Entry
    entry: Entry
    number: int

    @property
    def touches(self) -> tuple[int, ...]:
        """Both folders."""
        # A journal has either both halves or none, so syncing one folder makes both durable.
        return self.former[0], self.entry[0]

    def apply(self, tree: Tree) -> None:
        """Rename the node."""
        # After lost operations the old name may belong to another node, which stays.
        if tree.names.get(self.former) == self.number:
            del tree.names[self.former]
        tree.names[self.entry] = self.number


@dataclass(frozen=True)
class Change(Operation):
    """An operation on the content or the mode of a file."""

    number: int

    @property
    def touches(self) -> tuple[int, ...]:
        """The file."""
        return (self.number,)

    def apply(self, tree: Tree) -> None:
        """Apply the change."""
        apply_changes(tree, self.number, [self])

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


def apply_changes(tree: Tree, number: int, changes: Sequence[Change]) -> None:
    """Apply changes of one node in their order."""
    # Once for all of them: a file is copied to be changed, and an image is large.
    mode, content = tree.nodes[number].mode, bytearray(tree.nodes[number].content)
    for change in changes:
        change.edit(content)
        if isinstance(change, Chmod):
            mode = stat.S_IFMT(mode) | change.mode
    tree.nodes[number] = Node(mode, bytes(content))


@dataclass(frozen=True)
class Sync(Operation):
    """Sync a file or a folder, or everything: fsync, fdatasync, syncfs."""

    number: int | None
    """The node; None for the whole file system."""
