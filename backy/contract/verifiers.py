"""What a verifier plugin makes, and how it reports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from backy.contract.images import Image, Progress, Snapshot
from backy.errors import ChunkDamageError


@dataclass(frozen=True)
class Mismatch:
    """A chunk that differs between a snapshot and the stored image."""

    index: int
    """The chunk's index in the image."""
    cause: str
    """The cause in a few words."""
    expected: bytes | None
    """The bytes of the source."""
    found: bytes | None
    """The stored bytes; None if they can not be read."""
    damage: ChunkDamageError | None = None
    """The damage of the stored chunk; None if the chunk is sound but has other content than the source."""


MismatchHandler = Callable[[Mismatch], None]
"""Called for every mismatch when it is found, by the thread that called `verify`."""


@dataclass(frozen=True)
class Coverage:
    """When each chunk was compared last, so that verifiers can take turns."""

    seq: int
    """Number of the revision that is verified."""
    compared: Sequence[int]
    """By index, the number of the last revision in which any verifier compared the chunk; 0 if none is known.

    It is `seq` for a chunk that the storage has compared with the source, as it was left by a backup that did not end,
    if the snapshot is known to be of one instant.
    """

    def left(self, indexes: Iterable[int]) -> Iterator[int]:
        """Yield those of the indexes whose chunks were not compared for this revision already."""
        return (index for index in indexes if self.compared[index] < self.seq)

    def due(self, turns: int) -> list[int]:
        """Return the indexes of the chunks that missed their turn, then of those whose turn it is.

        It is a chunk's turn when its index and `seq` leave the same remainder when divided by `turns`. Among those that
        missed theirs, for instance as time was over, the one that was compared longest ago comes first.
        """
        # the number of each chunk's latest turn; numbers begin at 1, so that a first backup has missed none
        latest = (self.seq - (self.seq - index) % turns for index in range(len(self.compared)))
        found = zip(latest, self.compared, range(len(self.compared)), strict=True)
        return [index for _, _, index in sorted((turn == self.seq, last, i) for turn, last, i in found if last < turn)]


@dataclass(frozen=True)
class Report:
    """How much of an image a verifier compared."""

    verifier: str
    """The name of the verifier, as users write it."""
    compared: Collection[int]
    """Indexes of the chunks that were compared, each once. Holes of both images count as compared."""
    out_of_time: bool = False
    """Whether the verifier stopped before it had compared all chunks that it had chosen."""
    remarks: Sequence[str] = ()
    """What else the verifier noticed, a line each, such as a fault in a guest's file system.

    A remark is recorded, shown by `status` and warned of by `check`. It does not fail the backup, because what is
    stored is what the source has. The first 20 are kept.
    """


# A mismatch is no exception: a verifier goes on after it, and the core decides what follows from it.


class Verifier(Protocol):
    """Compares a fresh revision with its snapshot."""

    def verify(
        self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress, coverage: Coverage
    ) -> Report:
        """Compare both, call `mismatch` for each chunk that differs, and report which chunks were compared.

        `coverage` tells what earlier backups compared, and has one number for each chunk of the image. What is reported
        here is in that of the next backup, if this one succeeds. A verifier that compares only a part finds there which
        chunks have waited long.

        Call `progress` with the bytes compared. A chunk of `image` that can not be read raises ChunkDamageError: it is
        a mismatch, too, with the error as its `damage` and the source's bytes as `expected`, from which the core
        repairs it. `backy.comparing` does all this. What a verifier finds in an image that is equal to its source is
        no mismatch but a remark of the report.

        Raises:
            SourceError: the snapshot can not be read; the backup fails.
        """
