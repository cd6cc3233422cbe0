"""The results of drills: `<id>.drill` beside the record, and what the drill has shown in `<id>.drill.log`."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from backy.api import DrillResult
from backy.durable import names_in, read_file, write_file
from backy.errors import RevisionNotFoundError, warned
from backy.repository.journal import digest, fact_of
from backy.repository.records import DRILL, Records, ids_in

log = logging.getLogger(__name__)
ACT = "drill"
"""What the journal calls it."""


@dataclass(frozen=True, kw_only=True)
class Drilled(DrillResult):
    """The last drill of a revision."""

    revision: str
    """The id."""
    time: datetime
    """When it began, UTC."""
    type: str
    """The name of the plugin."""
    level: int
    """The level that was asked for."""
    ok: bool
    """Whether it was reached."""
    seconds: float
    """How long it took."""
    restore: float | None = None
    """Seconds in which a restore of all disks would read them; None if there is nothing to read."""


def write(records: Records, revision_id: str, drilled: Drilled, evidence: bytes = b"") -> None:
    """Write the result of a drill in place of an earlier one; raises RevisionNotFoundError if the revision is gone."""
    path, shown = records.drill_paths(revision_id)
    content = msgspec.json.format(msgspec.json.encode(drilled), indent=2) + b"\n"
    with records.recording():
        fact = fact_of(records.directory, revision_id)
        if fact.record is None:
            raise RevisionNotFoundError(f"revision {revision_id} was forgotten meanwhile")
        # by their digest, an auditor knows that both files are as they were written
        note = f"level {drilled.level} {'reached' if drilled.ok else 'not reached'}, {digest(content + evidence)}"
        with records.journal.act(ACT, revision_id, fact, note):
            write_file(shown, evidence, 0o600)
            write_file(path, content, 0o640)


def read(records: Records, revision_id: str) -> Drilled | None:
    """Return the last drill of a revision; None if there was none, or if its file is damaged, with a warning."""
    path = records.drill_paths(revision_id)[0]
    with warned(log, f"{path} does not count", (msgspec.DecodeError, OSError)), suppress(FileNotFoundError):
        return msgspec.json.decode(read_file(path), type=Drilled)
    return None


def kept(directory: Path) -> list[Drilled]:
    """Return the last drills of all revisions of a repository, the earliest one first."""
    names = names_in(directory) if directory.is_dir() else []
    found = (read(Records(directory), revision_id) for revision_id in ids_in(names, DRILL))
    return sorted(filter(None, found), key=lambda one: one.time)
