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
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from backy.testing.recording import Recording
from backy.testing.tree import Change, Enter, Operation, Remove, Rename, Sync, Tree, Write, apply_changes

# Linux writes back whole pages of its cache.
PAGE: Final = 4096


class Names(Enum):
    """The operations on names that are on the disk although they are not durable."""

    ALL = auto()
    NONE = auto()
    REMOVALS = auto()
    """Only operations that remove names."""
    ADDITIONS = auto()
    """Only operations that add names."""
    SOME = auto()
    """Each operation by chance."""


class Content(Enum):
    """The state of a file's content that is not durable."""

    KEPT = auto()
    LOST = auto()
    ZEROED = auto()
    """The file has its length, and zeroes in place of the data."""
    CUT = auto()
    """Only the first part is there."""
    TORN = auto()
    """Each page is new, old or zeroes, by chance."""
    ANY = auto()
    """One of the others for each file, by chance."""


@dataclass(frozen=True)
class Crash:
    """A power loss."""

    after: int
    """Number of operations that were called before it."""
    names: Names
    content: Content
    seed: int = 0

    def __str__(self) -> str:
        return f"power loss after {self.after} calls, names {self.names.name}, content {self.content.name}, {self.seed}"

    def tree(self, recording: Recording) -> Tree:
        """Return the content of the disk afterwards, if all was durable when the recording began."""
        return _Disk(recording.before, recording.operations[: self.after], self).tree()


CERTAIN: Final = (
    (Names.ALL, Content.KEPT),
    (Names.NONE, Content.LOST),
    (Names.ALL, Content.LOST),
    (Names.ALL, Content.ZEROED),
    (Names.REMOVALS, Content.LOST),
    (Names.ADDITIONS, Content.ZEROED),
)
"""The extremes, which are tried at every instant."""


def crashes(operations: Sequence[Operation], mixtures: int, seed: int) -> list[Crash]:
    """Return the power losses to try: at every instant all extremes, and `mixtures` combinations by chance."""
    found = []
    for after in range(len(operations) + 1):
        found += [Crash(after, names, content) for names, content in CERTAIN]
        found += [Crash(after, Names.SOME, Content.ANY, seed * 1000 + number) for number in range(mixtures)]
    return found


def distinct(recording: Recording, chosen: Iterable[Crash]) -> Iterator[tuple[Crash, Tree, dict[str, bytes]]]:
    """Yield crashes, what they leave on the disk, and what is kept elsewhere then.

    Skip a crash that leaves the same as an earlier one.
    """
    # Right after a sync, nearly all crashes leave the same, and each tree costs a whole check.
    seen = set()
    for crash in chosen:
        tree = crash.tree(recording)
        blobs = blobs_after(crash, *recording.blobs[crash.after : crash.after + 2]) if recording.blobs else {}
        state = hash((frozenset(tree.listing().items()), frozenset(blobs.items())))
        if state not in seen:
            seen.add(state)
            yield crash, tree, blobs


def landmarks(recording: Recording) -> list[int]:
    """Return the instants at which most can be lost, as numbers of operations.

    They are right after a map, a state or a record has its name, right after a file took the place of another one, and
    after all operations.
    """
    names = set(recording.before.names)
    found = []
    for number, operation in enumerate(recording.operations, 1):
        if isinstance(operation, Remove):
            names.discard(operation.entry)
        elif isinstance(operation, Enter | Rename):
            if operation.entry in names or operation.entry[1].endswith((".map", ".state", ".rev")):
                found.append(number)
            names.add(operation.entry)
    return [*found, len(recording.operations)]


def blobs_after(crash: Crash, earlier: Mapping[str, bytes], later: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return what is kept elsewhere after a crash between two instants, at which it was `earlier` and `later`.

    What changed between them was being sent when the power failed: it may be there or not, or in part.
    """
    chance = random.Random(f"{crash.after} {crash.seed} blobs")  # noqa: S311  # chance that can be had again
    if crash.names is Names.ALL and crash.content is Content.KEPT:
        return dict(later)
    found = dict(earlier)
    if crash.names is Names.NONE:
        return found
    for name in sorted(earlier.keys() | later.keys()):
        if earlier.get(name) == later.get(name) or chance.choice([True, False]):
            continue
        content = later.get(name)
        if content is None:
            del found[name]
        else:
            torn = crash.content in {Content.CUT, Content.TORN, Content.ANY} and chance.choice([True, False])
            found[name] = content[: len(content) // 2] if torn else content
    return found


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
        # All nodes first: a file without a name can still be written, and may get a name by a later rename.
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
        """Decide whether an operation on names is on the disk although it is not durable."""
        if self._crash.names is Names.SOME:
            return self._chance.choice([True, False])
        kind = Names.REMOVALS if isinstance(operation, Remove) else Names.ADDITIONS
        return self._crash.names in {Names.ALL, kind}

    def _change(self, tree: Tree, number: int) -> None:
        """Decide the content of one file."""
        durable: list[Change] = []
        pending: list[Change] = []
        for index, operation in enumerate(self._operations):
            if isinstance(operation, Change) and operation.number == number:
                (durable if index in self._durable else pending).append(operation)
        content = self._crash.content
        # Decided for each file: a disk may have written one of two files and not the other.
        if content is Content.ANY:
            content = self._chance.choice([kind for kind in Content if kind is not Content.ANY])
        # A sync covers everything before it, so pending changes always come after durable ones.
        apply_changes(tree, number, [*durable, *self._survivors(pending, content)])

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
        # Lengths and modes lie in the inode, which is written as a whole.
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
    """Return the positions of the operations that a later sync made durable."""
    durable: set[int] = set()
    for end, sync in enumerate(operations):
        if isinstance(sync, Sync):
            durable.update(
                index for index in range(end) if sync.number is None or sync.number in _touched(operations[index])
            )
    return durable


def _touched(operation: Operation) -> tuple[int, ...]:
    """Return the numbers of the nodes that an operation changes. Syncing one of them makes it durable."""
    match operation:
        case Change(number=number):
            return (number,)
        case Rename(former=(former, _), entry=(folder, _)):
            # A journal has either both halves or none, so syncing one folder makes both durable.
            return former, folder
        case Enter(entry=(folder, _)) | Remove(entry=(folder, _)):
            return (folder,)
    return ()
