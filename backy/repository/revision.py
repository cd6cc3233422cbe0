"""Revisions: the record `<id>.rev`, which never changes, and the state `<id>.state`, which does."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

import msgspec

# not by way of backy.api: the longest chain of imports goes through here
from backy.contract.images import Consistency
from backy.contract.revisions import RevisionInfo, Statistics, Verification
from backy.repository.sealed import FORMAT


class Trust(StrEnum):
    """Whether a revision's stored data is believed to be sound."""

    TRUSTED = "trusted"
    """It was stored, and no damage is known."""
    DISTRUSTED = "distrusted"
    """An operator doubts it, or damage was found. Nothing is built upon it."""
    WRONG = "wrong"
    """It is sound, but the source had other content. Nothing that reads only the storage can lift this."""
    VERIFIED = "verified"
    """It was distrusted; then all of it was read and is sound."""


class Group(msgspec.Struct, frozen=True):
    """The disks of one machine that were backed up at one instant."""

    id: str
    disks: tuple[str, ...]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a revision when it is complete: the content of `<id>.rev`."""

    id: str
    seq: int
    """Its number in the repository, greater than that of every earlier revision; no number is used twice."""
    timestamp: datetime
    """Start of the backup, UTC, by the machine's clock. Display and schedule use it; the order does not."""
    boot: str | None = None
    """Boot id of the machine at the start of the backup; None if the image was taken elsewhere."""
    boottime: float | None = None
    """Seconds of CLOCK_BOOTTIME at the start of the backup; None if the image was taken elsewhere."""
    trusted_time: datetime
    """Start of the backup as far as it does not depend on the clock being right; `clocks.trusted_time` explains it."""
    tags: tuple[str, ...]
    """The tags at birth; sorted, without duplicates. The state has those in force."""
    parent: str | None = None
    """Id of the revision that this one builds upon, None for a full backup."""
    size: int
    """Bytes of the image."""
    map_digest: str
    """The checksum at the end of `<id>.map`, in hexadecimal."""
    consistency: Consistency = "unknown"
    unfrozen: bool = False
    """Whether the source tried to bring the writers to rest, and could not."""
    group: Group | None = None
    """The group of disks that it belongs to."""
    snapshot: str | None = None
    """Name of the source's snapshot elsewhere, if the image was imported."""
    statistics: Statistics
    verifications: tuple[Verification, ...]
    """What each verifier reported, in the order of the job."""
    format: int = FORMAT


class Wrong(msgspec.Struct, frozen=True):
    """A difference between a sound revision and what its source had."""

    chunks: tuple[int, ...]
    """Indexes of the chunks that differ."""
    since: datetime
    """When it was found."""


class Origin(msgspec.Struct, frozen=True):
    """Where a copied revision comes from."""

    place: str = msgspec.field(name="from")
    time: datetime
    """When it was copied."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What may change of a complete revision: the content of `<id>.state`."""

    id: str
    tags: tuple[str, ...]
    """The tags in force; sorted, without duplicates."""
    storage: str | None
    """Identity of the store that has its data; None if it is lost, which stands for the one that `config` names."""
    distrusted: bool = False
    """Whether an operator doubts it, or damage was found."""
    damaged: tuple[int, ...] = ()
    """Indexes of the chunks that were found damaged and could not be repaired."""
    wrong: Wrong | None = None
    verified: datetime | None = None
    """When all of it was read and found sound, after it was distrusted."""
    origin: Origin | None = None
    """Where it was copied from; None if it was made here."""
    unsynced_boot: str | None = None
    """Boot id of the machine if the data was not synced. Then nothing builds upon it once the machine has stopped."""
    format: int = FORMAT


class Revision(msgspec.Struct, frozen=True):
    """The content of a source at one time: a record and its state."""

    record: Record
    state: State
    state_problem: str | None = None
    """Why the state could not be read, so that a doubtful one stands for it; else None."""

    @classmethod
    def without_state(cls, record: Record, problem: str) -> Self:
        """Make a revision whose state is lost: it is distrusted, has its tags at birth, and may be in any storage."""
        return cls(record, State(id=record.id, tags=record.tags, storage=None, distrusted=True), problem)

    def changed(self, **state: Any) -> Self:  # noqa: ANN401  # the members of `State` have many types
        """Return the revision with other members of its state."""
        return type(self)(self.record, msgspec.structs.replace(self.state, **state))

    @property
    def id(self) -> str:
        """The id."""
        return self.record.id

    @property
    def seq(self) -> int:
        """The number in the repository, which ascends."""
        return self.record.seq

    @property
    def order(self) -> tuple[int, datetime, str]:
        """The key by which revisions are sorted, the oldest first."""
        # the number alone decides; copies of a repository that went on apart may have used the same one
        return self.record.seq, self.record.timestamp, self.record.id

    @property
    def timestamp(self) -> datetime:
        """Start of the backup, UTC."""
        return self.record.timestamp

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags in force; sorted, without duplicates."""
        return self.state.tags

    @property
    def parent(self) -> str | None:
        """Id of the revision that this one builds upon, None for a full backup."""
        return self.record.parent

    @property
    def storage(self) -> str | None:
        """Identity of the store that has its data; None for the one that `config` names."""
        return self.state.storage

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return self.record.size

    @property
    def map_digest(self) -> str:
        """The checksum of the chunk map, in hexadecimal."""
        return self.record.map_digest

    @property
    def consistency(self) -> Consistency:
        """Whether the writers were at rest."""
        return self.record.consistency

    @property
    def snapshot(self) -> str | None:
        """Name of the source's snapshot elsewhere, if the image was imported."""
        return self.record.snapshot

    @property
    def statistics(self) -> Statistics:
        """What the backup did."""
        return self.record.statistics

    @property
    def verification(self) -> Verification | None:
        """What all verifiers reported, as one."""
        return Verification.together(self.verifications)

    @property
    def verifications(self) -> tuple[Verification, ...]:
        """What each verifier reported, in the order of the job."""
        return self.record.verifications

    @property
    def damaged(self) -> tuple[int, ...]:
        """Indexes of the chunks that were found damaged and could not be repaired."""
        return self.state.damaged

    @property
    def trust(self) -> Trust:
        """Whether the stored data is believed to be sound."""
        if self.state.distrusted:
            return Trust.DISTRUSTED
        if self.state.wrong is not None:
            return Trust.WRONG
        return Trust.VERIFIED if self.state.verified else Trust.TRUSTED

    @property
    def doubtful(self) -> bool:
        """Whether nobody should rely on it: nothing is built upon it, and it counts for no retention."""
        return self.trust in {Trust.DISTRUSTED, Trust.WRONG}

    @property
    def suspect(self) -> bool:
        """Whether the revision is distrusted and has not been read since."""
        return self.state.distrusted and not self.state.damaged

    @property
    def info(self) -> RevisionInfo:
        """The facts that plugins and other programs get."""
        return RevisionInfo(
            id=self.id,
            seq=self.seq,
            timestamp=self.timestamp,
            tags=self.tags,
            parent=self.parent,
            size=self.size,
            storage=self.storage,
            trust=str(self.trust),
            consistency=self.consistency,
            snapshot=self.snapshot,
            statistics=self.statistics,
            verification=self.verification,
            verifications=self.verifications,
        )


def parse_tags(text: str) -> tuple[str, ...]:
    """Split the comma-separated TAGS of a command line; return them sorted, without duplicates.

    Raises:
        ValueError: a tag is empty or has control characters; the text names it.
    """
    tags = [tag.strip() for tag in text.split(",")]
    for tag in tags:
        if not tag:
            raise ValueError(f"a tag is empty in {text!r}; write TAG or TAG,TAG")
        if not tag.isprintable():
            raise ValueError(f"the tag {tag!r} has control characters")
    return tuple(sorted(set(tags)))


def utc_now() -> datetime:
    """Return the time in UTC; the clock of everything that is not given another one."""
    return datetime.now(UTC)
