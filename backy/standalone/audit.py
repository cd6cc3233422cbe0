#!/usr/bin/env python3
"""Hold the backy repository that contains this file against its journal, without backy. restore.py does it, too.

usage: python3 audit.py     print what somebody else than backy has changed, a line each; exit code 1 if there is any

Needs Python 3.8 or newer.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, NamedTuple, Optional, Tuple

REPOSITORY = Path(__file__).resolve().parent
Fact = Tuple[Optional[str], Optional[str]]  # SHA-256 of a record and of a state, None for one that is not there
MOST = 20  # findings that are printed
GONE: Fact = (None, None)
UNREAD = "can not be read: "


class Line(NamedTuple):
    """What is checked of a line of the journal."""

    number: Any
    before: Any
    act: Any
    step: Any
    revision: str | None
    note: Any
    fact: Any
    was: Any


@dataclass
class History:
    """All that a journal tells since its beginning, or since a person adopted what was there."""

    told: dict[str, list[Fact]] = field(default_factory=dict)
    """What each revision is: what was written last, and what it may be since, as nobody could tell what came of an act.

    Those that are gone are left out.
    """
    pending: Line | None = None
    """An act that was neither done nor dropped: it runs, or a crash has ended it."""
    problems: list[str] = field(default_factory=list)
    """Where the journal contradicts itself."""

    job: str = ""
    """Id of the repository, by the first line."""
    length: int = 0
    """Number of lines."""
    last: str = ""
    """The hash of the last line."""
    adopted: int = 0
    """Number of the line of the last adoption; 0 without one."""
    adoption: str = ""
    """The hash of that line."""


def read_line(raw: bytes) -> Line | None:
    """Return a line; None if it is damaged."""
    try:
        found = json.loads(raw.decode())
        facts = [one and (one["record"], one["state"]) for one in (found["fact"], found["was"])]
        name = found["revision"] and str(found["revision"])
        return Line(found["number"], found["before"], found["act"], found["step"], name, found.get("note"), *facts)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_file(path: Path, limit: int = 2**26) -> bytes:
    """Return the content of a file: a pipe by its name would never end, and a sparse file claims any length."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise OSError(0, f"it is no regular file, or has more than {limit} bytes")
        return stream.read()


def digest(path: Path) -> str | None:
    """Return the SHA-256 of a file, None if there is none, or why it can not be read."""
    try:
        return hashlib.sha256(read_file(path)).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as problem:
        # No file, a folder, a link and a socket: looking again does not help.
        wrong = problem.errno in (0, errno.EISDIR, errno.ELOOP, errno.ENXIO)
        return "is no regular file, or too long" if wrong else UNREAD + str(problem.strerror)


def fact(directory: Path, name: str) -> Fact:
    """Return what a revision is, by the files that are there."""
    record = digest(directory / f"{name}.rev")
    # Without a record there is no revision, whatever an interrupted backup or a removal left.
    return (record, digest(directory / f"{name}.state")) if record else GONE


def facts(directory: Path) -> dict[str, Fact]:
    """Return what all revisions are that have a record."""
    paths = [path for path in directory.glob("*.rev") if re.fullmatch("[0-9A-Za-z][0-9A-Za-z-]{7,63}", path.stem)]
    return {one.stem: fact(directory, one.stem) for one in paths if not one.is_symlink()}


def chained(line: Line, number: int, before: str) -> list[str]:
    """Return how a line breaks the chain."""
    if line.number != number:
        return [f"line {number} has the number {line.number}"]
    return [] if line.before == before else [f"line {number} does not follow the one before it"]


def follow(line: Line, pending: Line | None, told: dict[str, list[Fact]]) -> list[str]:
    """Take in what a line tells of its revision, if it is not gone; return how it contradicts the lines before it."""
    problems = []
    if pending and (line.step == "intended" or (line.act, line.revision) != (pending.act, pending.revision)):
        problems.append(f"line {pending.number}: nothing tells whether '{pending.act}' was done")
    if line.step == "intended":
        # An act on what somebody had changed must not make it right.
        was = line.was if line.was and line.fact and line.fact[0] and UNREAD not in f"{line.was}" else None
        if was and was not in told.get(line.revision or "", [GONE]):
            problems.append(f"line {line.number}: {line.revision} was not what was written last, before '{line.act}'")
    elif line.step == "unknown" and line.revision and line.fact:
        # A file could not be read: what was before may be there, or what was intended.
        told[line.revision] = [*told.get(line.revision, [GONE]), line.fact]
    elif line.step == "done" and line.revision and line.fact:
        told[line.revision] = [line.fact]
        if not line.fact[0]:
            del told[line.revision]
    return problems


def replay(lines: Iterable[tuple[Line | None, str]], history: History) -> None:
    """Follow lines, which are chained by hashes, each with its hash; None stands for a damaged one."""
    for number, (line, line_hash) in enumerate(lines, history.length + 1):
        if number == 1:
            history.job = (line and line.note) or ""
            if not line or line.act != "begin":
                history.problems.append("the journal has no beginning")
        elif line and line.act == "adopt" and not line.revision:
            # What a person declared to be right counts from then on.
            history.told, history.problems, history.pending = {}, [], None
            history.adopted, history.adoption = number, line_hash
        if line:
            history.problems += chained(line, number, history.last) + follow(line, history.pending, history.told)
            history.pending = line if line.step == "intended" else None
        else:
            history.problems.append(f"line {number} is damaged")
        history.length, history.last = number, line_hash


def contradictions(told: dict[str, list[Fact]], pending: Line | None, found: dict[str, Fact]) -> list[str]:
    """Return where what was found is not what a journal tells, nor what the act explains that has no end yet."""
    problems = []
    for name in sorted({*told, *found}):
        there = found.get(name, GONE)
        was = list(told.get(name, [GONE]))
        if pending and pending.revision == name:
            was.append(pending.fact or GONE)
        if there not in was:
            # What can not be read now is held against what it may be.
            problems.append(difference(name, next((one for one in was if may_be(there, one)), was[0]), there))
    return problems


def may_be(there: Fact, told: Fact) -> bool:
    """Return whether what is there is what was told, as far as it could be read."""
    return all(one == other or (other and (one or "").startswith(UNREAD)) for one, other in zip(there, told))


def difference(name: str, told: Fact, there: Fact) -> str:
    """Return how a revision is not what the journal tells."""
    if not told[0]:
        return f"revision {name} is there, and the journal does not know of it"
    if not there[0]:
        return f"revision {name} is gone, and nothing in the journal removed it"
    what, content = (".rev", there[0]) if told[0] != there[0] else (".state", there[1])
    return f"{name}{what} {content if ' ' in (content or '') else 'is not the one that was written last'}"


def audit() -> list[str]:
    """Return what contradicts the journal of the repository."""
    path = REPOSITORY / "journal"
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as lock:
            # A writer holds it as long as records and journal may differ.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            raws, history = read_file(path, 2**30).split(b"\n")[:-1], History()
            replay(((read_line(raw), hashlib.sha256(raw).hexdigest()) for raw in raws), history)
            found = history.problems + contradictions(history.told, history.pending, facts(REPOSITORY))
            return found if raws else ["there is no journal"]
    except FileNotFoundError:
        return ["there is no journal"]
    except OSError as problem:
        return [f"the journal was not checked: {problem.strerror}"]


def main() -> int:
    """Print what was found."""
    found = audit()
    for text in found[:MOST] + [f"and {len(found) - MOST} findings more"] * (len(found) > MOST):
        print("".join(one if one.isprintable() else ascii(one)[1:-1] for one in text))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
