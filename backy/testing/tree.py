"""A directory as plain data: names, contents, modes and links, without times and owners; and operations on it."""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = 0
"""The number of the directory itself."""
ELSEWHERE = -1
"""The number of a folder outside of the directory: its entries are what is kept elsewhere, such as objects."""

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

    @classmethod
    def at(cls, path: Path) -> "Node":
        """Return the node that has this path."""
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            return cls(mode, path.read_bytes())
        if stat.S_ISLNK(mode):
            return cls(mode, os.fsencode(path.readlink()))
        # backy makes no other kinds, and a socket or device can not be written again from plain data.
        if not stat.S_ISDIR(mode):
            raise ValueError(f"{path} is neither a file nor a folder nor a symbolic link")
        return cls(mode)


@dataclass
class Tree:
    """The nodes of a directory by number, and their names. A number is never used for a second node."""

    nodes: dict[int, Node]
    names: dict[Entry, int]

    @classmethod
    def read(cls, directory: Path, blobs: Mapping[str, bytes] | None = None) -> "Tree":
        """Return the content of `directory`, and `blobs`, which are kept elsewhere, by name.

        Raises:
            ValueError: it has something that is neither a file nor a folder nor a symbolic link.
        """
        tree = cls({ROOT: Node(directory.stat().st_mode)}, {})
        known: dict[tuple[int, int], int] = {}
        numbers = {directory: ROOT}
        for path in sorted(directory.rglob("*")):
            status = path.lstat()
            # Names with one inode are hard links to one node.
            number = numbers[path] = known.setdefault((status.st_dev, status.st_ino), len(tree.nodes))
            if number not in tree.nodes:
                tree.nodes[number] = Node.at(path)
            tree.names[numbers[path.parent], path.name] = number
        for name, content in (blobs or {}).items():
            number = tree.names[ELSEWHERE, name] = len(tree.nodes)
            tree.nodes[number] = Node(stat.S_IFREG, content)
        return tree

    @property
    def blobs(self) -> dict[str, bytes]:
        """What is kept elsewhere, by name."""
        return {name: self.nodes[at].content for (folder, name), at in self.names.items() if folder == ELSEWHERE}

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

    def copy(self) -> "Tree":
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

    def differences(self, other: "Tree") -> list[str]:
        """Return the paths at which two trees differ."""
        return sorted({path for path, _ in self.listing().items() ^ other.listing().items()})


@dataclass(frozen=True)
class Operation:
    """A call that changed something or synced it."""

    number: int | None
    """The node."""

    @property
    def touches(self) -> tuple[int, ...]:
        """Numbers of the nodes that it changes. Syncing one of them makes the operation durable."""
        return () if self.number is None else (self.number,)

    def apply(self, tree: Tree) -> None:
        """Apply the operation to `tree`. Leave the tree as it is if it lacks the node or the name."""


class Sync(Operation):
    """Sync a file or a folder, or everything, whose number is None: fsync, fdatasync, syncfs."""


@dataclass(frozen=True)
class Naming(Operation):
    """An operation on names, in one step: open with O_CREAT, mkdir, symlink, link, rename, unlink, rmdir.

    One that only removes a name does so whichever node has it, and its number is None.
    """

    entry: Entry | None = None
    """The name that comes, maybe in place of another node's."""
    former: Entry | None = None
    """The name that goes."""
    node: Node | None = None
    """The node itself if it is new."""

    @property
    def touches(self) -> tuple[int, ...]:
        """The folders."""
        # A journal has either both halves of a rename or none, so syncing one folder makes both durable.
        return tuple(entry[0] for entry in (self.former, self.entry) if entry)

    def make(self, tree: Tree) -> None:
        """Make the node without its name."""
        if self.number is not None and self.node is not None:
            tree.nodes.setdefault(self.number, self.node)

    def apply(self, tree: Tree) -> None:
        """Make the node, and change its names."""
        self.make(tree)
        # After lost operations the old name of a rename may belong to another node, which stays, or to none.
        if self.former and self.number in {None, tree.names.get(self.former)}:
            tree.names.pop(self.former, None)
        if self.entry and self.number is not None:
            tree.names[self.entry] = self.number


@dataclass(frozen=True)
class Change(Operation):
    """An operation on the content or the mode of a file."""

    number: int

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
