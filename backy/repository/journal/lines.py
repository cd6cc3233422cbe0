"""The lines of a journal. Pure.

Each line tells of one step of one act, and has the hash of the line before. docs/reference/format.md describes them.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec
from msgspec.structs import astuple

from backy.standalone import audit

_Hash = Annotated[str, msgspec.Meta(max_length=64)]
UNREAD = audit.UNREAD
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

    def may_be(self, other: "Fact") -> bool:
        """Tell whether this is `other`, as far as the files could be read."""
        return audit.may_be(astuple(self), astuple(other))


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

    job: Annotated[str, msgspec.Meta(max_length=255)]
    """Id of the repository."""
    number: Annotated[int, msgspec.Meta(ge=1)]
    hash: _Hash
    adoption: _Hash = ""
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


def head_of(lines: Sequence[Read]) -> Head | None:
    """Return what a witness remembers of a journal; None if it has no lines."""
    if not lines:
        return None
    first = lines[0].line
    adoptions = [one.hash for one in lines if one.line and one.line.act == ADOPT and not one.line.revision]
    return Head((first and first.note) or "", len(lines), lines[-1].hash, adoptions[-1] if adoptions else "")


def doubted_since(lines: Sequence[Read], revision_id: str) -> datetime | None:
    """Return when a revision was first called wrong; None if it never was."""
    times = (line.time for line, _ in lines if line and line.act == DOUBT and line.revision == revision_id)
    return next(times, None)
