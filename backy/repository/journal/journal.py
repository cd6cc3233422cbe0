"""The file `journal` of a repository: every act on a record or a state is written down, durably, before it is done."""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from backy.durable import allocate_ahead, closed_at_end, open_regular, read_file, sync_folder, write_all
from backy.errors import UnreadError
from backy.repository.journal.lines import BEGIN, NO_LINE, Fact, Line, Read, Step, decode, digest, encode
from backy.standalone import audit
from backy.system.clocks import present

log = logging.getLogger(__name__)
JOURNAL = "journal"

_MODE = 0o640
_AHEAD = 64 * 1024
"""Bytes that are allocated behind the end, so that a full disk keeps nobody from forgetting something."""
_LONGEST = 2**32
"""Bytes that no journal exceeds: some millions of acts."""
_TAIL = 4096
"""Bytes at the end that have a whole line, unless somebody gave a reason of many words."""


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
            try:
                end.append(act, revision=revision_id, fact=fact, note=note)
                end.sync()
            except OSError as error:
                # it is done all the same, and must not count as failed
                log.warning("%s can not be written: %s; the next command does it", self.path, error.strerror)

    @contextmanager
    def _opened(self, *, counting: bool = False) -> Iterator["_End"]:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with closed_at_end(os.open(self.path, flags, _MODE)) as descriptor:
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
        allocate_ahead(self._descriptor, _AHEAD)


def fact_of(directory: Path, revision_id: str) -> Fact:
    """Return what a revision is, by the files that are there. Reads them without understanding them."""
    return Fact(*audit.fact(directory, revision_id))


def facts_of(directory: Path) -> dict[str, Fact]:
    """Return what all revisions are that have a record."""
    return {revision_id: Fact(*fact) for revision_id, fact in audit.facts(directory).items()}
