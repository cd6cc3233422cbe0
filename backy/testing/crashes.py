"""What a power loss may leave of a recording.

The model, which allows all that ext4 (in any of its data modes) and XFS do, and more:

- An operation is durable once what it touches was synced after it: by `fsync` of the file for its writes, its length
  and its mode; by `fsync` of the folder for the names in it; by `syncfs` for everything. To sync a file does not make
  its name durable, to sync a folder neither the files in it nor its own name.
- Names: every operation on names that is not durable is there or not, independently of all others and of their order.
  Each one is atomic: a rename is there with both its halves or with none. A name without its folder is lost.
- Content: of the writes to a file that are not durable, none, all or some are there. They are lost, or only their
  first part is there, or the file has its length but zeroes where it was written (blocks without data), or every page
  of 4096 bytes is independently new, old or zeroes. The same holds for lengths and modes.
- What is durable is whole. Reading a disk gives what was written to it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from backy.testing.operations import Change, Enter, Operation, Remove, Rename, Sync, SyncAll, Write
from backy.testing.tree import Tree

PAGE: Final = 4096


class Names(Enum):
    """Which of the operations on names that are not durable are there."""

    ALL = auto()
    NONE = auto()
    REMOVALS = auto()
    """Those alone that take names away."""
    ADDITIONS = auto()
    """Those alone that give names."""
    SOME = auto()
    """Every one by chance."""


class Content(Enum):
    """What is there of a file's content that is not durable."""

    KEPT = auto()
    LOST = auto()
    ZEROED = auto()
    CUT = auto()
    TORN = auto()
    ANY = auto()
    """For every file one of the others, by chance."""


@dataclass(frozen=True)
class Crash:
    """A power loss."""

    after: int
    """So many operations had been called."""
    names: Names
    content: Content
    seed: int = 0

    def __str__(self) -> str:
        return f"power loss after {self.after} calls, names {self.names.name}, content {self.content.name}, {self.seed}"

    def tree(self, before: Tree, operations: Sequence[Operation]) -> Tree:
        """Return what is on the disk afterwards, if `before` was there and durable when the recording began."""
        return _Disk(before, operations[: self.after], self).tree()


CERTAIN: Final = (
    (Names.ALL, Content.KEPT),
    (Names.NONE, Content.LOST),
    (Names.ALL, Content.LOST),
    (Names.ALL, Content.ZEROED),
    (Names.REMOVALS, Content.LOST),
    (Names.ADDITIONS, Content.ZEROED),
)
"""The extremes, which are worth a look at every instant."""


def crashes(operations: Sequence[Operation], mixtures: int, seed: int) -> list[Crash]:
    """Return the power losses worth a look: at every instant the extremes, and so many mixtures by chance."""
    found = []
    for after in range(len(operations) + 1):
        found += [Crash(after, names, content) for names, content in CERTAIN]
        found += [Crash(after, Names.SOME, Content.ANY, seed * 1000 + number) for number in range(mixtures)]
    return found


def distinct(before: Tree, operations: Sequence[Operation], chosen: Iterable[Crash]) -> Iterator[tuple[Crash, Tree]]:
    """Yield crashes with what they leave, leaving out those that leave what another one did."""
    seen = set()
    for crash in chosen:
        tree = crash.tree(before, operations)
        state = hash(tuple(sorted(tree.listing().items())))
        if state not in seen:
            seen.add(state)
            yield crash, tree


class _Disk:
    """The state of a disk after a crash."""

    def __init__(self, before: Tree, operations: Sequence[Operation], crash: Crash) -> None:
        self._before = before
        self._operations = operations
        self._crash = crash
        self._chance = random.Random(f"{crash.after} {crash.seed}")  # noqa: S311  # chance that can be had again
        self._durable = _durable(operations)

    def tree(self) -> Tree:
        tree = self._before.copy()
        for operation in self._operations:
            if isinstance(operation, Enter):
                operation.make(tree)
        for index, operation in enumerate(self._operations):
            if isinstance(operation, Enter | Remove | Rename) and (index in self._durable or self._there(operation)):
                operation.apply(tree)
        for number in {operation.number for operation in self._operations if isinstance(operation, Change)}:
            self._change(tree, number)
        return tree

    def _there(self, operation: Operation) -> bool:
        """Decide whether an operation on names is there that need not be."""
        removal = isinstance(operation, Remove)
        return {
            Names.ALL: True,
            Names.NONE: False,
            Names.REMOVALS: removal,
            Names.ADDITIONS: not removal,
            Names.SOME: self._chance.choice([True, False]),
        }[self._crash.names]

    def _change(self, tree: Tree, number: int) -> None:
        """Decide what is in one file."""
        pending = []
        for index, operation in enumerate(self._operations):
            if isinstance(operation, Change) and operation.number == number:
                if index in self._durable:
                    operation.apply(tree)
                else:
                    pending.append(operation)
        content = self._crash.content
        if content is Content.ANY:
            content = self._chance.choice([kind for kind in Content if kind is not Content.ANY])
        for change in self._survivors(pending, content):
            change.apply(tree)

    def _survivors(self, pending: list[Change], content: Content) -> Iterator[Change]:
        if content is Content.KEPT:
            yield from pending
        elif content is Content.ZEROED:
            for change in pending:
                yield replace(change, content=bytes(len(change.content))) if isinstance(change, Write) else change
        elif content is Content.CUT and pending:
            last = self._chance.randrange(len(pending))
            yield from pending[:last]
            change = pending[last]
            if isinstance(change, Write):
                yield replace(change, content=change.content[: self._chance.randrange(len(change.content))])
        elif content is Content.TORN:
            for change in pending:
                yield from self._torn(change)

    def _torn(self, change: Change) -> Iterator[Change]:
        if not isinstance(change, Write):
            if self._chance.choice([True, False]):
                yield change
            return
        for start in range(0, len(change.content), PAGE):
            page = change.content[start : start + PAGE]
            fate = self._chance.choice(["new", "old", "zero"])
            if fate != "old":
                yield Write(change.number, change.offset + start, page if fate == "new" else bytes(len(page)))


def _durable(operations: Sequence[Operation]) -> set[int]:
    """Return the indexes of the operations that were synced."""
    durable: set[int] = set()
    for end, sync in enumerate(operations):
        if isinstance(sync, SyncAll):
            durable.update(range(end))
        elif isinstance(sync, Sync):
            durable.update(index for index in range(end) if sync.number in operations[index].touches)
    return durable
