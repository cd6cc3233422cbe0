"""The file `journal` of a repository: every act on a record or a state is written down, durably, before it is done.

Each line tells of one step of one act, and has the hash of the line before. docs/reference/format.md describes them.
What follows from the lines is in `backy.answers.replay`.
"""

import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec.structs import astuple

from backy.durable import allocate_ahead, closed_at_end, open_regular, read_file, sync_folder, write_all
from backy.errors import UnreadError, warned
from backy.standalone import audit
from backy.system.clocks import present

log = logging.getLogger(__name__)
JOURNAL = "journal"

_LONGEST = 2**32
"""Bytes that no journal exceeds: some millions of acts."""
_TAIL = 4096
"""Bytes at the end that have a whole line, unless somebody gave a reason of many words."""
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
    return next((line.time for line, _ in lines if line and line.act == DOUBT and line.revision == revision_id), None)


class Journal:
    """The journal of the repository in `directory`. Each call waits for the lock of the file. Raises OSError."""

    def __init__(self, directory: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.directory = directory
        self.path = directory / JOURNAL
        self._clock = clock

    def read(self, *, having: bytes = b"") -> list[Read]:
        """Return the lines, or those that have these bytes; none if there is no journal."""
        try:
            content = read_file(self.path, _LONGEST)
        except FileNotFoundError:
            return []
        # many may be asked for one after the other, and to understand a line takes long
        return decode(b"".join(one for one in content.splitlines(keepends=True) if having in one))

    @contextmanager
    def reading(self, *, wait: bool = True) -> Iterator[bytes | None]:
        """Return what the file has, while nobody writes more; None if somebody does, and `wait` is false."""
        try:
            descriptor = open_regular(self.path, _LONGEST)
        except FileNotFoundError:
            yield b""
            return
        with os.fdopen(descriptor, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield None
                return
            yield file.read()

    def declare(self, act: str, note: str | None, facts: Mapping[str, Fact]) -> None:
        """Write down, in one step, an act on the repository, and what its revisions are from then on.

        Raises:
            UnreadError: nobody can tell what one of them is.
        """
        for revision_id, fact in facts.items():
            if fact.unread:
                raise UnreadError(f"revision {revision_id} can not be read now, so nobody can tell if it is right")
        # what is adopted may be a journal whose last line tells a wrong number
        with self._opened(counting=True) as end:
            end.append(act, note=note)
            for revision_id, fact in facts.items():
                end.append(act, revision=revision_id, fact=fact)
            end.sync()

    def begin(self, job: str) -> None:
        """Begin the journal of a job with the revisions that are there, unless it has begun."""
        if not self.read():
            self.declare(BEGIN, job, facts_of(self.directory))

    @contextmanager
    def act(
        self, act: str, revision_id: str | None = None, fact: Fact | None = None, note: str | None = None
    ) -> Iterator[None]:
        """Write down what the body will do, and after it that it is done.

        Args:
            act: What is done, in a word.
            revision_id: The revision; None if the act is about the repository.
            fact: What the revision is afterwards.
            note: Why a person does it.
        """
        with self._opened() as end:
            was = fact_of(self.directory, revision_id) if revision_id else None
            end.append(act, Step.INTENDED, revision=revision_id, fact=fact, was=was, note=note)
            end.sync()
            # an error leaves the intention: who writes the next line looks for what came of it
            yield
            # it is done all the same, and must not count as failed
            with warned(log, f"{self.path} can not be written, which the next command does", OSError):
                end.append(act, revision=revision_id, fact=fact, note=note)
                end.sync()

    @contextmanager
    def _opened(self, *, counting: bool = False) -> Iterator["_End"]:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with closed_at_end(os.open(self.path, flags, 0o640)) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end = _End(descriptor, self._clock, counting=counting)
            if end.number == 0:
                sync_folder(self.directory)
            last = end.last
            if last and last.step is Step.INTENDED:
                there, step = fact_of(self.directory, last.revision) if last.revision else Fact(), Step.DROPPED
                # what came of an act on the repository no file tells
                if last.fact and there.may_be(last.fact):
                    # one file that can not be read must not stop all that others do
                    step = Step.UNKNOWN if there.unread else Step.DONE
                end.append(last.act, step, revision=last.revision, fact=last.fact, note=last.note)
            yield end


class _End:
    """The end of the file, while its lock is held; `counting` does not believe the number of the last line."""

    def __init__(self, descriptor: int, clock: Callable[[], datetime], *, counting: bool) -> None:
        self._descriptor = descriptor
        self._clock = clock
        self._unwritten = bytearray()
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, _TAIL, max(size - _TAIL, 0))
        lines = decode(tail)
        if size > _TAIL and (counting or not (lines and lines[-1].line)):
            # damaged, torn, or a long one: all are counted, as the next line has to be in its place
            tail = os.pread(descriptor, size, 0)
            lines = decode(tail)
        self.last = lines[-1].line if lines else None
        # what a crash left of a line was never relied on
        if torn := len(tail) - tail.rfind(b"\n") - 1:
            os.ftruncate(descriptor, size - torn)
        self._before = lines[-1].hash if lines else NO_LINE
        self.number = self.last.number if self.last and not counting else len(lines)

    def append(self, act: str, step: Step = Step.DONE, **more: object) -> None:
        """Add a line with `more` of its members."""
        self.number += 1
        now = present(self._clock())
        more |= {"time": now.wall, "boot": now.boot or "", "boottime": now.boottime or 0.0}
        line = Line(number=self.number, before=self._before, act=act, step=step, **more)  # type: ignore[arg-type]  # members of a line
        content = encode(line)
        self._unwritten += content
        self._before = digest(content[:-1])

    def sync(self) -> None:
        """Bring the lines to the disk, in one piece, and allocate room for more."""
        write_all(self._descriptor, self._unwritten)
        self._unwritten.clear()
        os.fdatasync(self._descriptor)
        # so that a full disk keeps nobody from forgetting something
        allocate_ahead(self._descriptor, 64 * 1024)


def fact_of(directory: Path, revision_id: str) -> Fact:
    """Return what a revision is, by the files that are there. Reads them without understanding them."""
    return Fact(*audit.fact(directory, revision_id))


def facts_of(directory: Path) -> dict[str, Fact]:
    """Return what all revisions are that have a record."""
    return {revision_id: Fact(*fact) for revision_id, fact in audit.facts(directory).items()}
