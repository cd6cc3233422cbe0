"""Computes what a power loss may leave of a recording.

The model allows everything that ext4 (in any of its data modes) and XFS do, and more:

- An operation is durable when the node that it touches was synced after it: by `fsync` of the file for writes, length
  and mode; by `fsync` of the folder for the names in it; by `syncfs` for everything. Syncing a file does not make its
  name durable. Syncing a folder makes neither the files in it nor its own name durable.
- Names: each operation on names that is not durable may be on the disk or not, independently of all others and of
  their order. Each one is atomic: a rename is there with both halves or with none. A name without its folder is lost.
- Content: of the writes to a file that are not durable, none, all or some are on the disk. They are lost, or only their
  first part is there, or the file has its length and zeroes in place of the data (blocks without data), or each page
  of 4096 bytes is independently new, old or zeroes. The same holds for lengths and modes.
- Durable data is whole. The disk returns the bytes that were written to it.
- What is kept elsewhere behaves as files that are synced at once: only what is being sent may be lost or in part.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from backy.testing.recording import Recording
from backy.testing.tree import Change, Entry, Naming, Operation, Sync, Tree, Write, apply_changes

# Linux writes back whole pages of its cache.
PAGE: Final = 4096


Names = Literal["all", "none", "removals", "additions", "some"]
"""The operations on names that are on the disk although they are not durable; of some, each one by chance."""
Content = Literal["kept", "lost", "zeroed", "cut", "torn", "any"]
"""The state of a file's content that is not durable.

`zeroed`: the file has its length, and zeroes in place of the data. `cut`: only the first part is there. `torn`: each
page is new, old or zeroes, by chance. `any`: one of the others for each file, by chance.
"""


@dataclass(frozen=True)
class Crash:
    """A power loss."""

    after: int
    """Number of operations that were called before it."""
    names: Names
    content: Content
    seed: int = 0

    def __str__(self) -> str:
        return f"power loss after {self.after} calls, names {self.names}, content {self.content}, {self.seed}"

    def tree(self, recording: Recording) -> Tree:
        """Return the content of the disk afterwards, if all was durable when the recording began."""
        operations = recording.operations[: self.after]
        chance = random.Random(f"{self.after} {self.seed}")  # noqa: S311  # chance that can be had again
        durable = _durable(operations)
        tree = recording.before.copy()
        namings = {index: one for index, one in enumerate(operations) if isinstance(one, Naming)}
        # All nodes first: a file without a name can still be written, and may get a name by a later rename.
        for naming in namings.values():
            naming.make(tree)
        for index, naming in namings.items():
            if index in durable or self._there(naming, chance):
                naming.apply(tree)
        changes = {index: one for index, one in enumerate(operations) if isinstance(one, Change)}
        for number in {one.number for one in changes.values()}:
            mine = {index: one for index, one in changes.items() if one.number == number}
            # A sync covers everything before it, so pending changes always come after durable ones.
            pending = [one for index, one in mine.items() if index not in durable]
            kept = [one for index, one in mine.items() if index in durable]
            apply_changes(tree, number, [*kept, *self._survivors(pending, chance)])
        return tree

    def _there(self, naming: Naming, chance: random.Random) -> bool:
        """Decide whether an operation on names is on the disk although it is not durable."""
        if self.names == "some":
            return chance.choice([True, False])
        return self.names in {"all", "additions" if naming.entry else "removals"}

    def _survivors(self, pending: list[Change], chance: random.Random) -> Iterator[Change]:
        """Yield the changes of one file that are on the disk although they are not durable."""
        content = self.content
        # Decided for each file: a disk may have written one of two files and not the other.
        if content == "any":
            content = chance.choice(("kept", "lost", "zeroed", "cut", "torn"))
        if content == "kept":
            yield from pending
        elif content == "zeroed":
            for change in pending:
                yield replace(change, content=bytes(len(change.content))) if isinstance(change, Write) else change
        elif content == "cut" and pending:
            last = chance.randrange(len(pending))
            yield from pending[:last]
            change = pending[last]
            if isinstance(change, Write):
                yield replace(change, content=change.content[: chance.randrange(len(change.content))])
        elif content == "torn":
            for change in pending:
                yield from _torn(change, chance)


def _torn(change: Change, chance: random.Random) -> Iterator[Change]:
    # Lengths and modes lie in the inode, which is written as a whole.
    if not isinstance(change, Write):
        if chance.choice([True, False]):
            yield change
        return
    for start in range(0, len(change.content), PAGE):
        page = change.content[start : start + PAGE]
        fate = chance.choice(["new", "old", "zero"])
        if fate != "old":
            yield Write(change.number, change.offset + start, page if fate == "new" else bytes(len(page)))


def _durable(operations: Sequence[Operation]) -> set[int]:
    """Return the positions of the operations that a later sync made durable."""
    durable: set[int] = set()
    for end, sync in enumerate(operations):
        if isinstance(sync, Sync):
            durable |= {index for index in range(end) if sync.number in {None, *operations[index].touches}}
    return durable


CERTAIN: Final[tuple[tuple[Names, Content], ...]] = (
    ("all", "kept"),
    ("none", "lost"),
    ("all", "lost"),
    ("all", "zeroed"),
    ("removals", "lost"),
    ("additions", "zeroed"),
)
"""The extremes, which are tried at every instant."""


def crashes(operations: Sequence[Operation], mixtures: int, seed: int) -> list[Crash]:
    """Return the power losses to try: at every instant all extremes, and `mixtures` combinations by chance."""
    found = []
    for after in range(len(operations) + 1):
        found += [Crash(after, names, content) for names, content in CERTAIN]
        found += [Crash(after, "some", "any", seed * 1000 + number) for number in range(mixtures)]
    return found


def distinct(recording: Recording, chosen: Iterable[Crash]) -> Iterator[tuple[Crash, Tree]]:
    """Yield crashes, and what they leave on the disk and elsewhere.

    Skip a crash that leaves the same as an earlier one.
    """
    # Right after a sync, nearly all crashes leave the same, and each tree costs a whole check.
    seen = set()
    for crash in chosen:
        tree = crash.tree(recording)
        state = hash((frozenset(tree.listing().items()), frozenset(tree.blobs.items())))
        if state not in seen:
            seen.add(state)
            yield crash, tree


def landmarks(recording: Recording) -> list[int]:
    """Return the instants at which most can be lost, as numbers of operations.

    They are right after a map, a state or a record has its name, right after a file took the place of another one, and
    after all operations.
    """
    names: set[Entry | None] = set(recording.before.names)
    found = []
    for number, operation in enumerate(recording.operations, 1):
        if isinstance(operation, Naming):
            names.discard(operation.former)
            if (entry := operation.entry) and (entry in names or entry[1].endswith((".map", ".state", ".rev"))):
                found.append(number)
            names.add(entry)
    return [*found, len(recording.operations)]
