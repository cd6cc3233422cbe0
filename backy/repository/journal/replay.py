"""The lines of a journal, and what follows from them: what each revision has to be, and what contradicts it. Pure.

Each line tells of one step of one act, and has the hash of the line before. docs/reference/format.md describes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec

UNREAD = "can not be read: "
NO_LINE = ""
"""What the first line has instead of the hash of a line before it."""
BEGIN = "begin"
"""The act of the first line."""
ADOPT = "adopt"
"""The act by which a person declares that what is there is right: a line about the repository, and one a revision."""
DOUBT = "doubt"
"""The act by which a revision is called wrong, which nothing takes back."""


class Step(StrEnum):
    """How far an act has come."""

    INTENDED = "intended"
    """It begins once this line is on the disk."""
    DONE = "done"
    """All of it is on the disk."""
    DROPPED = "dropped"
    """It was intended, and a crash or an error prevented it, or maybe all of it."""
    UNKNOWN = "unknown"
    """It was intended, and nobody could tell what came of it, as a file could not be read."""


class Fact(msgspec.Struct, frozen=True, gc=False):
    """What a revision is at one time."""

    record: str | None = None
    """SHA-256 of `<id>.rev`, in hexadecimal; None if there is no such file, and therefore no revision."""
    state: str | None = None
    """SHA-256 of `<id>.state`, likewise."""

    @property
    def unread(self) -> bool:
        """Whether a file could not be read at this time; then `UNREAD` and the cause stand for its digest."""
        return any((text or "").startswith(UNREAD) for text in (self.record, self.state))

    def may_be(self, other: Fact) -> bool:
        """Tell whether this is `other`, as far as the files could be read."""
        pairs = ((self.record, other.record), (self.state, other.state))
        return all(there == told or (told and (there or "").startswith(UNREAD)) for there, told in pairs)


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A line of the journal."""

    number: int
    """From 1, without gaps."""
    before: str
    """SHA-256 of the line before, without its newline, in hexadecimal; `NO_LINE` for the first one."""
    time: datetime
    """UTC, by a clock that may be wrong."""
    boot: str
    """Boot id of the machine."""
    boottime: float
    """Seconds of CLOCK_BOOTTIME."""
    act: str
    """What was done, such as `backup` or `tags`."""
    step: Step = Step.DONE
    revision: str | None = None
    """The id; None if the act is about the repository."""
    fact: Fact | None = None
    """What the revision is after the act."""
    was: Fact | None = None
    """What the revision was when it was intended, as its files told."""
    note: str | None = None
    """Why a person did it, or the id of the repository in the line that begins a journal."""


class Head(msgspec.Struct, frozen=True):
    """The last line of a journal, by which a witness remembers all of it."""

    job: str
    """Id of the repository."""
    number: int
    hash: str
    adoption: str = ""
    """The hash of the line of the last adoption; empty without one."""


class Read(NamedTuple):
    """A line as it stands in the file."""

    line: Line | None
    """None if it can not be understood."""
    hash: str


def digest(content: bytes) -> str:
    """Return the SHA-256 of a line or a file, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def encode(line: Line) -> bytes:
    """Return the bytes of a line, its newline included."""
    return msgspec.json.encode(line) + b"\n"


def decode(content: bytes) -> list[Read]:
    """Return the complete lines of a journal, in order. What follows the last newline is no line yet."""
    decoder = msgspec.json.Decoder(Line)
    return [Read(_understood(decoder, raw), digest(raw)) for raw in content.split(b"\n")[:-1]]


def _understood(decoder: msgspec.json.Decoder[Line], raw: bytes) -> Line | None:
    try:
        line = decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # one way to write a line, so that nothing can be said in two ways
    return line if line.time.tzinfo and encode(line) == raw + b"\n" else None


@dataclass
class History:
    """All that a journal tells since its beginning, or since a person adopted what was there."""

    facts: dict[str, Fact] = field(default_factory=dict)
    """What each revision is; those that are gone are left out."""
    unknown: dict[str, tuple[Fact, ...]] = field(default_factory=dict)
    """What else revisions may be since then, as nobody could tell what came of acts on them."""
    pending: Line | None = None
    """An act that was neither done nor dropped: it runs, or a crash has ended it."""
    problems: list[str] = field(default_factory=list)
    """Where the journal contradicts itself."""

    job: str = ""
    """Id of the repository, by the first line."""
    length: int = 0
    """Number of lines."""
    last: str = NO_LINE
    """The hash of the last line."""
    adopted: int = 0
    """Number of the line of the last adoption; 0 without one."""
    adoption: str = ""
    """The hash of that line."""

    @property
    def head(self) -> Head | None:
        """What a witness remembers; None if there is no journal."""
        return Head(self.job, self.length, self.last, self.adoption) if self.length else None


def replay(lines: Iterable[Read], known: History | None = None) -> History:
    """Follow the lines to the last one; they go on from what is `known`."""
    known = known or History()
    history = replace(known, facts=dict(known.facts), unknown=dict(known.unknown), problems=list(known.problems))
    for number, (line, line_hash) in enumerate(lines, history.length + 1):
        if number == 1:
            history.job = (line and line.note) or ""
            if not line or line.act != BEGIN:
                history.problems.append("the journal has no beginning")
        elif line and line.act == ADOPT and not line.revision:
            # what was before binds nobody any more
            history = History(job=history.job, last=history.last, adopted=number, adoption=line_hash)
        if problem := _broken(line, number, history.last):
            history.problems.append(problem)
        if line:
            _follow(history, line)
        history.length, history.last = number, line_hash
    return history


def _broken(line: Line | None, number: int, before: str) -> str | None:
    """Return how a line breaks the chain."""
    if line is None:
        return f"line {number} is damaged"
    if line.number != number:
        return f"line {number} has the number {line.number}"
    return None if line.before == before else f"line {number} does not follow the one before it"


def _follow(history: History, line: Line) -> None:
    """Take in one line."""
    pending, history.pending = history.pending, None
    if pending and (line.step is Step.INTENDED or (line.act, line.revision) != (pending.act, pending.revision)):
        history.problems.append(f"line {pending.number}: nothing tells whether '{pending.act}' was done")
    if line.step is Step.INTENDED:
        history.pending = line
        told = _told(history, line.revision or "")
        # an act on what somebody has changed before must not make it right
        if line.was and line.fact and line.fact.record and line.was not in told and not line.was.unread:
            history.problems.append(
                f"line {line.number}: {line.revision} was not what was written last, before '{line.act}'"
            )
    elif line.step is Step.UNKNOWN and line.revision and line.fact:
        history.unknown[line.revision] = (*history.unknown.get(line.revision, ()), line.fact)
    elif line.step is Step.DONE and line.revision and line.fact:
        history.unknown.pop(line.revision, None)
        if line.fact.record is None:
            history.facts.pop(line.revision, None)
        else:
            history.facts[line.revision] = line.fact


def contradictions(history: History, found: Mapping[str, Fact]) -> Iterator[str]:
    """Yield where the directory is not what the journal tells.

    Args:
        history: What the journal tells.
        found: What is there.
    """
    for revision_id in sorted(history.facts.keys() | found.keys()):
        told, there = _told(history, revision_id), found.get(revision_id, Fact())
        # an act that has not ended explains what is there, too
        if history.pending and history.pending.revision == revision_id:
            told.append(history.pending.fact or Fact())
        if there not in told:
            # what can not be read now is held against what it may be
            yield _difference(revision_id, next(filter(there.may_be, told), told[0]), there)


def _told(history: History, revision_id: str) -> list[Fact]:
    """Return what a revision may be: what was written last, and what may have been since."""
    return [history.facts.get(revision_id, Fact()), *history.unknown.get(revision_id, ())]


def _difference(revision_id: str, told: Fact, there: Fact) -> str:
    if told.record is None:
        return f"revision {revision_id} is there, and the journal does not know of it"
    if there.record is None:
        return f"revision {revision_id} is gone, and nothing in the journal removed it"
    what, content = (".rev", there.record) if told.record != there.record else (".state", there.state)
    unread = content is not None and " " in content
    return f"{revision_id}{what} {content if unread else 'is not the one that was written last'}"


def doubted_since(lines: Sequence[Read], revision_id: str) -> datetime | None:
    """Return when a revision was first called wrong; None if it never was."""
    times = (line.time for line, _ in lines if line and line.act == DOUBT and line.revision == revision_id)
    return next(times, None)


def unwitnessed(lines: Sequence[Read], history: History, head: Head) -> str | None:
    """Return how a journal contradicts what a witness saw; None if it goes on from there."""
    if history.job != head.job:
        return f"the journal is that of {history.job or 'nobody'}, and the witness saw that of {head.job}"
    if head.number > len(lines):
        return f"the journal ends with line {len(lines)}, and the witness saw line {head.number}"
    if lines[head.number - 1].hash != head.hash:
        return f"line {head.number} of the journal is not the one that the witness saw"
    # whoever can write to the directory can also adopt, so this is for the one who has the witness to judge
    if history.adopted > head.number:
        return f"since the witness looked, what was there was adopted, in line {history.adopted} of the journal"
    return None


def findings(
    lines: Sequence[Read], found: Mapping[str, Fact], witnessed: Iterable[Head] = (), history: History | None = None
) -> list[str]:
    """Return all that is wrong with a directory that has this journal.

    Args:
        lines: The journal.
        found: What is there of revisions.
        witnessed: The last lines that witnesses saw of this journal.
        history: What the lines tell, if it is known.
    """
    if not lines:
        return ["there is no journal"]
    history = history or replay(lines)
    return [
        *history.problems,
        *contradictions(history, found),
        *filter(None, (unwitnessed(lines, history, head) for head in witnessed)),
    ]
