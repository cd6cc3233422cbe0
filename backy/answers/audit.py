"""Holds a repository against its journal, and the journal against what witnesses saw of it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from backy.answers.replay import findings, replay
from backy.durable import read_file
from backy.errors import DamageError, WitnessError
from backy.repository.journal import ADOPT, Head, decode, facts_of
from backy.repository.repository import Repository

_LONGEST = 2**28
"""Bytes of the longest witness: the status of very many jobs."""


class Audit(msgspec.Struct, frozen=True):
    """What an audit found. As JSON it is what a witness remembers."""

    head: Head | None
    """The last line of the journal; None if there is none, or if nobody should remember it."""
    lines: int
    """Number of lines of the journal."""
    revisions: int
    """Number of revisions, those in the trash included."""
    findings: tuple[str, ...]


def audit(repository: Repository, witnessed: Sequence[Head] = ()) -> Audit:
    """Hold records, states and maps against the journal.

    Args:
        repository: Is only read.
        witnessed: What witnesses saw; heads of other repositories are left out.
    """
    with repository.records.journal.reading() as content:
        found = facts_of(repository.directory)
    lines = decode(content or b"")
    history = replay(lines)
    seen = [one for one in witnessed if one.job == history.job]
    problems = findings(lines, found, seen, history)
    if witnessed and not seen:
        problems.append("the witness has not seen the journal of this repository")
    # last, as they take longest
    problems += _maps(repository)
    return Audit(None if problems else history.head, len(lines), len(found), tuple(problems))


def adopt(repository: Repository) -> Audit:
    """Declare that what is there is right, whatever the journal tells; return the audit of it.

    Raises:
        RepositoryBusyError: a backup is running.
        UnreadError: a record or a state can not be read.
    """
    with repository.locked():
        facts = facts_of(repository.directory)
        journal = repository.records.journal
        journal.begin(repository.job.id)
        journal.declare(ADOPT, None, facts)
    return audit(repository)


def read_witness(path: Path) -> list[Head]:
    """Return the heads in a file that `backy audit --json` made, or in the status file of a scheduler.

    Raises:
        WitnessError: it has none.
    """
    try:
        heads = list(_heads(msgspec.json.decode(read_file(path, _LONGEST))))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WitnessError(f"{path} is no witness: {error}; 'backy audit --json' makes one") from error
    if not heads:
        raise WitnessError(f"{path} is no witness: it has no 'head'; 'backy audit --json' makes one")
    return heads


def _heads(content: Any) -> Iterable[Head]:  # noqa: ANN401  # any JSON
    values = content if isinstance(content, list) else content.values() if isinstance(content, dict) else ()
    for value in values:
        yield from _heads(value)
    if isinstance(content, dict) and content.get("head"):
        yield msgspec.convert(content["head"], Head)


def _maps(repository: Repository) -> list[str]:
    problems = []
    for revision in repository.records.survey(trash=True)[0]:
        try:
            repository.records.read_map(revision)
        except DamageError as error:
            # it may have left the trash meanwhile
            if repository.records.record_path(revision.id).exists():
                problems.append(str(error))
    return problems
