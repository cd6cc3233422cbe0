"""What plugins make, but for storages, and what they learn of stored revisions.

They make sources, imports, targets of a restore, verifiers, moments, drills, and commands of the console.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import msgspec

from backy.contract.images import Consistency, Image, Progress, Snapshot
from backy.errors import ChunkDamageError
from backy.text.phrases import counted


class Source(Protocol):
    """A source of images."""

    @property
    def verifier(self) -> str:
        """Name of the verifier to use unless the job names one."""

    def snapshot(self, revision_id: str, parent: str | None) -> AbstractContextManager[Snapshot]:
        """Freeze the source for one backup, which makes revision `revision_id`.

        `parent` is the complete revision that the new one builds upon; None for a full backup. The context ends without
        an exception when the revision is complete, and with an exception when the revision is to be removed.

        Raises:
            SourceError: there is no such source, or it can not be frozen.
            SourceBusyError: another backup uses the source; the command ends as busy.
        """


@runtime_checkable
class KeepingSource(Source, Protocol):
    """A source that keeps something for revisions, such as a snapshot to compare the next one with."""

    # A cache: a backup that does not find what was kept reads everything.
    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove what is kept for revisions of this job that are not in `revision_ids`.

        Called with the complete revisions that are left when one was forgotten, and with no revision when the job is
        given up. No backup of the job runs meanwhile: if one was forgotten beside a backup, it is the next removal that
        calls this.

        Raises:
            SourceError: the source can not be reached.
        """


@runtime_checkable
class SharingSource(Source, Protocol):
    """A source that reads from what other jobs read from, too, so that there may be a limit for all of them."""

    @property
    def reads_from(self) -> Collection[str]:
        """The names of limits that apply, such as `ceph-pool/rbd`: a kind and a name."""


class Import(Protocol):
    """An image that was taken elsewhere: all of it, or its differences from an earlier snapshot."""

    @property
    def base(self) -> str | None:
        """Name of the snapshot that it differs from; None for a whole image.

        This is the `name` of an earlier import, or `backy-<id>` with the id of a revision.
        """

    @property
    def name(self) -> str | None:
        """Name of the snapshot that the image is of. Later imports refer to it. None if it has no name."""

    def snapshot(self, base: Image | None) -> Snapshot:
        """Return the image, made of the image of `self.base` and the differences, which `changes` yields."""


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


class Moment(Protocol):
    """Writers at rest."""

    @property
    def frozen(self) -> bool:
        """Whether all file systems are frozen, as a guest does it itself. An image of one instant is `guest` then."""


@dataclass(frozen=True)
class DrillResult:
    """How far a drill has come."""

    reached: int | None = None
    """The highest level that was reached; None if none was."""
    reason: str = ""
    """Why the level that was asked for was not reached, in one line; empty if it was."""
    signs: tuple[tuple[str, float], ...] = ()
    """Each sign of life in a word or two, and the seconds from the beginning of the drill to it."""
    remarks: tuple[str, ...] = ()
    """What else there is to know, a line each, such as what nothing could check."""
    accelerator: str = ""
    """What ran the machine: `kvm` or `tcg`; empty if none ran."""


class Drill(Protocol):
    """Proves that revisions can be restored.

    The levels, each of which includes those below it: 0, partitions and file systems are found; 1, the file systems
    are sound; 2, the guest boots by its own kernel; 3, it boots by its own boot loader; 4, a program runs in it.
    """

    def run(
        self, disks: Mapping[Path, str], level: int, within: timedelta, evidence: Callable[[bytes], object]
    ) -> DrillResult:
        """Try to reach a level with a machine that has these disks, and change nothing of them.

        Args:
            disks: The id of the revision of each disk by its repository's directory, in the order of the disks.
            level: The level.
            within: How long it may take.
            evidence: Called with what a person may want to see, such as the console, piece by piece.

        Raises:
            ConfigError: the drill has no such level.
            BackyError: it could not be tried, as a program is missing: this says nothing about the revisions.
        """


@dataclass(frozen=True)
class ConsoleCommand:
    """A command that a plugin adds to the scheduler's console and to `backy client`."""

    name: str
    """One word. A command of backy that has the same name wins."""
    help: str
    """One sentence for the list of commands."""
    run: Callable[[Sequence[str]], str]
    """Called in a process of its own with the words after the name. Returns the text to show, or raises a
    BackyError to show."""
    changes: bool = False
    """Whether the command changes anything. Such commands can be switched off together."""


class Verification(msgspec.Struct, frozen=True, gc=False):
    """How much of a revision was compared with its source."""

    verifier: str
    """The verifier's name, as users write it; several have commas between them."""
    checked: int
    """Chunks compared."""
    total: int
    """Chunks of the image."""
    out_of_time: bool = False
    """Whether the verifier stopped before it had compared all that it had chosen."""
    remarks: tuple[str, ...] = ()
    """What else it noticed; each line begins with the verifier's name."""

    @classmethod
    def together(cls, verifications: Sequence[Self], figure: Callable[[Iterable[int]], int] = max) -> Self | None:
        """Return several verifications of one revision as one; None if there is none.

        `figure` is `sum` for those of several images.
        """
        if not verifications:
            return None
        if len(verifications) == 1:
            return verifications[0]
        # the record does not tell which chunks these were, so what is sure is what the most thorough one did
        checked, total = (figure(getattr(one, name) for one in verifications) for name in ("checked", "total"))
        names = ", ".join(dict.fromkeys(one.verifier for one in verifications))
        out_of_time = checked < total and any(one.out_of_time for one in verifications)
        return cls(names, checked, total, out_of_time, tuple(text for one in verifications for text in one.remarks))

    def __str__(self) -> str:
        return f"{self._extent()}, {counted(len(self.remarks), 'remark')}" if self.remarks else self._extent()

    def _extent(self) -> str:
        part = f"{self.checked} of {counted(self.total, 'chunk')}"
        if self.out_of_time:
            return f"verified partly, {part}"
        if self.checked >= self.total:
            return "verified"
        return f"verified {part}" if self.checked else "not verified"


class Statistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Figures of a backup."""

    duration: float
    """Seconds from the source's snapshot to the end of the verification."""
    bytes_read: int
    """Bytes read from the source to make the revision."""
    bytes_written: int
    """Bytes of the pages that differ from the parent, or from zeroes where that has none."""
    bytes_stored: int
    """Sizes of the new files in the storage."""


@dataclass(frozen=True)
class RevisionInfo:
    """The facts of a complete revision; a copy that does not change with the repository."""

    id: str
    """The id: the name of its files."""
    seq: int
    """Number in the repository, greater than that of every earlier revision."""
    timestamp: datetime
    """Start of the backup, UTC, by the machine's clock."""
    tags: tuple[str, ...]
    """Sorted, without duplicates."""
    parent: str | None
    """Id of the revision that this one was made from; None for a full backup."""
    size: int
    """Bytes of the image."""
    storage: str | None
    """Identity of the store that has its chunks; None if that is lost and the storage in `config` is asked for them."""
    trust: str
    """`trusted`, `distrusted`, `verified` after it was distrusted, or `wrong` if the source had other content."""
    consistency: Consistency
    """Whether the writers were at rest."""
    snapshot: str | None
    """Name of the source's snapshot, if the image was imported."""
    statistics: Statistics
    """What the backup did."""
    verification: Verification | None
    """How far the revision was compared with its source, by all verifiers of the job together."""
    verifications: tuple[Verification, ...] = ()
    """What each of the job's verifiers reported, in their order."""
