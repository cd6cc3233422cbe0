"""Revisions: the record `<id>.rev`, which never changes, and the state `<id>.state`, which does."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, TypeVar

import msgspec

# not by way of backy.api: the longest chain of imports goes through here
from backy.contract.images import LARGEST_IMAGE, Consistency, chunk_count
from backy.contract.plugins import RevisionInfo, Statistics, Verification
from backy.errors import DamageError, RevisionNotFoundError, UnreadError
from backy.repository.sealed import FORMAT
from backy.system.clocks import Instant, trusted_time
from backy.text.phrases import counted, did_you_mean, size

Time = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time that can be compared with others."""
MANUAL = "manual:"
"""Beginning of the tags that are given by hand. They are in no schedule and never expire."""
PINNED = "pinned:"
"""Beginning of the tags that backy gives to a revision that somebody may miss because of what came after it."""


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


class Disks(msgspec.Struct, frozen=True):
    """The disks of one machine that were backed up at one instant."""

    id: str
    disks: tuple[str, ...]

    def is_half(self, machine: Path) -> bool:
        """Tell whether the other disks below `machine` lack the revision, as their backup runs or was killed."""
        # else the folder of a disk may be missing for another reason
        begun = (machine / f".{self.id}.running").exists()
        return begun and not all((machine / disk / f"{self.id}.rev").exists() for disk in self.disks)


class Birth(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a revision when its backup begins: the content of `.<id>.running`."""

    id: str
    seq: int
    """Its number in the repository, greater than that of every earlier revision; no number is used twice."""
    timestamp: Time
    """Start of the backup, UTC, by the machine's clock. Display and schedule use it; the order does not."""
    boot: str | None = None
    """Boot id of the machine at the start of the backup; None if the image was taken elsewhere."""
    boottime: Annotated[float, msgspec.Meta(ge=-(2**32), le=2**32)] | None = None
    """Seconds of CLOCK_BOOTTIME at the start of the backup; None if the image was taken elsewhere."""
    trusted_time: Time
    """Start of the backup as far as it does not depend on the clock being right; see `backy.system.clocks`."""
    birth_tags: tuple[str, ...] = msgspec.field(name="tags")
    """The tags at birth; sorted, without duplicates. The state has those in force."""
    parent: str | None = None
    """Id of the revision that this one builds upon, None for a full backup."""


class Shrunk(msgspec.Struct, frozen=True):
    """What an image had before it shrank."""

    revision: str
    """Id of the revision before."""
    size: int
    """Bytes of its image."""
    data: int
    """Bytes of its chunks that were not zeroes."""
    left: int
    """Bytes of the new image's chunks that are not zeroes."""

    def to(self, now: int) -> str:
        """Return how it shrank to an image of `now` bytes."""
        return f"shrank from {size(self.size)} with {size(self.data)} of data to {size(now)} with {size(self.left)}"


class Record(Birth, frozen=True, kw_only=True, gc=False):
    """What is known of a revision when it is complete: the content of `<id>.rev`."""

    size: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_IMAGE)]
    """Bytes of the image."""
    map_digest: str
    """The checksum at the end of `<id>.map`, in hexadecimal."""
    consistency: Consistency = "unknown"
    unfrozen: bool = False
    """Whether the source tried to bring the writers to rest, and could not."""
    shrunk: Shrunk | None = None
    """What the image had before, if it is smaller now, or has only zeroes where it had data; else None."""
    group: Disks | None = None
    """The group of disks that it belongs to."""
    stall: float | None = None
    """Seconds that the writers rested while snapshots were taken; None if nothing brought them to rest."""
    snapshot: str | None = None
    """Name of the source's snapshot elsewhere, if the image was imported."""
    attachments: str | None = None
    """SHA-256 of `<id>.attachments`, in hexadecimal; None if there are none."""
    statistics: Statistics
    verifications: tuple[Verification, ...]
    """What each verifier reported, in the order of the job."""
    compared_since: Time | None = None
    """Start of the earliest of the backups that together compared all of the image; None if a part never was."""
    format: int = FORMAT


class Wrong(msgspec.Struct, frozen=True):
    """A difference between a sound revision and what its source had."""

    chunks: tuple[int, ...]
    """Indexes of the chunks that differ."""
    since: Time
    """When it was found."""


class Origin(msgspec.Struct, frozen=True):
    """Where a copied revision comes from."""

    place: str = msgspec.field(name="from")
    time: Time
    """When it was copied."""


class State(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    verified: Time | None = None
    """When all of it was read and found sound, after it was distrusted."""
    pinned: Time | None = None
    """Trusted time of the backup that gave it a tag which begins with `pinned:`."""
    origin: Origin | None = None
    """Where it was copied from; None if it was made here."""
    forgotten: Time | None = None
    """Since when it is in the trash, by the trusted time of `clocks`; None if it is in use."""
    unsynced_boot: str | None = None
    """Boot id of the machine if the data was not synced. Then nothing builds upon it once the machine has stopped."""
    format: int = FORMAT

    def with_doubt_of(self, other: Self) -> Self:
        """Return this state with the doubt of another one about the same revision. None of its own is lifted."""
        wrongs = [state.wrong for state in (self, other) if state.wrong]
        chunks = tuple(sorted({index for wrong in wrongs for index in wrong.chunks}))
        # one that is distrusted without damage is yet to be read as a whole, whatever the other one found
        suspect = any(state.distrusted and not state.damaged for state in (self, other))
        doubted = msgspec.structs.replace(
            self,
            distrusted=self.distrusted or other.distrusted,
            damaged=() if suspect else tuple(sorted({*self.damaged, *other.damaged})),
            wrong=Wrong(chunks, min(wrong.since for wrong in wrongs)) if wrongs else None,
        )
        return self if doubted == self else msgspec.structs.replace(doubted, verified=None)


class Revision(Record, frozen=True, kw_only=True, gc=False):
    """The content of a source at one time: what its record has, and its state."""

    state: State
    state_problem: str | None = None
    """Why the state could not be read, so that a doubtful one stands for it; else None."""
    unread: bool = False
    """Whether the state is there but can not be read now: then nothing of the doubtful one is ever written."""

    @classmethod
    def of(cls, record: Record, state: State) -> Self:
        """Make the revision that a record and a state tell of."""
        return cls(**msgspec.structs.asdict(record), state=state)

    @classmethod
    def without_state(cls, record: Record, cause: DamageError, since: datetime | None = None) -> Self:
        """Make a revision whose state is lost: it is distrusted, has its tags at birth, and may be in any storage.

        All of it is wrong if it is known `since` when it is: only the lost state told in which chunks.
        """
        wrong = Wrong(tuple(range(chunk_count(record.size))), since) if since else None
        made = cls.of(record, State(id=record.id, tags=record.birth_tags, storage=None, distrusted=True, wrong=wrong))
        problem, unread = f"{cause}; the revision is distrusted", isinstance(cause, UnreadError)
        return msgspec.structs.replace(made, state_problem=problem, unread=unread)

    def changed(self, **state: Any) -> Self:  # noqa: ANN401  # the members of `State` have many types
        """Return the revision with other members of its state."""
        return msgspec.structs.replace(self, state=msgspec.structs.replace(self.state, **state), state_problem=None)

    @property
    def record(self) -> Record:
        """The content of `<id>.rev`."""
        return msgspec.convert(self, Record, from_attributes=True)

    @property
    def order(self) -> tuple[int, datetime, str]:
        """The key by which revisions are sorted, the oldest first."""
        # the number alone decides; copies of a repository that went on apart may have used the same one
        return self.seq, self.timestamp, self.id

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags in force; sorted, without duplicates."""
        return self.state.tags

    @property
    def storage(self) -> str | None:
        """Identity of the store that has its data; None for the one that `config` names."""
        return self.state.storage

    @property
    def verification(self) -> Verification | None:
        """What all verifiers reported, as one."""
        return Verification.together(self.verifications)

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
    def doubt(self) -> str:
        """What is known against a doubtful revision, for operators."""
        if self.state.wrong is None:
            return f"revision {self.id} is {self.trust}, by an operator or for damage that was found"
        chunks = counted(len(self.state.wrong.chunks), "chunk")
        return f"revision {self.id} is wrong in {chunks}: the source had other content"

    @property
    def suspect(self) -> bool:
        """Whether the revision is distrusted and has not been read since."""
        return self.state.distrusted and not self.state.damaged

    @property
    def info(self) -> RevisionInfo:
        """The facts that plugins and other programs get."""
        # plain text, because plugins do not know the type
        return replace(msgspec.convert(self, RevisionInfo, from_attributes=True), trust=str(self.trust))


def parse_tags(text: str) -> tuple[str, ...]:
    """Split the comma-separated TAGS of a command line; return them sorted, without duplicates.

    Raises:
        ValueError: no revision can have one of them; the text tells why.
    """
    tags = [tag.strip() for tag in text.split(",")]
    if not all(tags):
        raise ValueError(f"a tag is empty in {text!r}; write TAG or TAG,TAG")
    for problem in filter(None, map(tag_problem, tags)):
        raise ValueError(problem)
    return tuple(sorted(set(tags)))


def tag_problem(tag: str) -> str | None:
    """Return why no revision can have a tag; None if one can."""
    if not tag or "," in tag or tag != tag.strip() or not tag.isprintable():
        return f"{tag!r} can be no tag: a tag has no comma, no control character, and no blank at its ends"
    if tag == MANUAL:
        return f"'{tag}' can be no tag: it has no name behind the colon, as '{MANUAL}before-upgrade' has"
    # nobody could name a revision by it
    if tag.isdecimal() or tag in {"last", "latest"}:
        meaning = "number" if tag.isdecimal() else "place"
        return f"'{tag}' can be no tag: '-r {tag}' means the revision of that {meaning}"
    return None


Clock = Callable[[], datetime]
"""Returns the time in UTC."""


def utc_now() -> datetime:
    """Return the time in UTC; the clock of everything that is not given another one."""
    return datetime.now(UTC)


def trusted_now(records: Iterable[Record], now: Instant, allowance: timedelta) -> datetime:
    """Return the trusted time of `now`, counted on from the latest backup; the clock's time if there is none.

    `allowance` is the longest time that is believed where the machine was started since.
    """
    known = list(records)
    # images that were imported may be of any time; of equal trusted times, the later backup has the later clock
    made = [record for record in known if record.boot] or known
    if not made:
        return now.wall
    before = max(made, key=lambda record: (record.trusted_time, record.seq))
    return trusted_time(Instant(before.timestamp, before.boot, before.boottime), before.trusted_time, now, allowance)


class Named(Protocol):
    """What SPEC can name."""

    @property
    def id(self) -> str:
        """The id."""

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags in force."""


_Named = TypeVar("_Named", bound=Named)


def select(history: Sequence[_Named], specification: str) -> _Named:
    """Return the revision that SPEC names.

    Tries in this order: a number (0 is the newest), a full id, `last` or `latest`, a tag (its newest revision), and
    the beginning of an id that only one revision has.

    Args:
        history: The revisions, the oldest first.
        specification: SPEC as a user wrote it.

    Raises:
        RevisionNotFoundError: SPEC names none, or it begins several ids.
    """
    newest_first = list(reversed(history))
    if not newest_first:
        raise RevisionNotFoundError(f"no revision '{specification}': the repository has no complete revision yet")
    # a number wins over a tag of digits: '-r 0' always means the newest one
    if re.fullmatch(r"\d+", specification, re.ASCII):
        if int(specification) < len(newest_first):
            return newest_first[int(specification)]
        numbers = f"they are numbered from 0, the newest, to {len(newest_first) - 1}"
        raise RevisionNotFoundError(f"no revision {int(specification)}: {numbers}")
    named = [revision for revision in newest_first if specification in {revision.id, "last", "latest"}]
    if found := named or [revision for revision in newest_first if specification in revision.tags]:
        return found[0]
    # every id begins with an empty text, which is more likely an unset variable of a script than a wish
    matching = [revision for revision in newest_first if specification and revision.id.startswith(specification)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        ids = ", ".join(revision.id for revision in matching)
        raise RevisionNotFoundError(f"'{specification}' is ambiguous: it begins the ids {ids}")
    known = sorted({tag for revision in newest_first for tag in revision.tags})
    there = f"there are: {', '.join(['last', *known])}, 0 to {len(newest_first) - 1}"
    text = f"no revision '{specification}'; {did_you_mean(specification, known)}{there}"
    raise RevisionNotFoundError(f"{text}; 'backy status' lists their ids, too")
