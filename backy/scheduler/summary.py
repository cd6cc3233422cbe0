"""What a repository holds, as far as the scheduler has to know it: read once, and again when it has changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backy import quarantine
from backy.errors import BackyError
from backy.repository import Repository, survey
from backy.revision import Revision, Trust
from backy.schedule import MANUAL, Past

Stamp = tuple[int, int]
"""When a repository and its quarantine were changed; another one means that it has to be looked at again."""


@dataclass(frozen=True)
class Summary:
    """The revisions of a repository in a few words."""

    past: Past
    newest: Revision | None = None
    """The newest complete revision."""
    revisions: int = 0
    """Complete ones."""
    manual_tags: tuple[str, ...] = ()
    """Tags that nobody but an operator takes away."""
    distrusted: int = 0
    """Revisions that are distrusted."""
    unreadable: int = 0
    """Records that are damaged."""
    reports: int = 0
    """Reports in the quarantine."""
    stamp: Stamp = (0, 0)

    @property
    def duration(self) -> float | None:
        """How many seconds the newest revision took."""
        return self.newest.statistics.duration if self.newest and self.newest.statistics else None


def stamp(directory: Path) -> Stamp:
    """Tell when a repository was changed; two zeroes where there is none."""
    return _changed(directory), _changed(directory / quarantine.FOLDER)


def summarize(directory: Path, since: datetime) -> Summary:
    """Read all records of a repository; one that is not there yet has none.

    A job without revisions is known since its repository was made, or else `since` then.
    """
    before = stamp(directory)  # what changes from here on is seen the next time
    sound, damaged = survey(directory)
    complete = [revision for revision in sound if revision.complete]
    return Summary(
        past=Past.of(complete, since if complete else _made(directory) or since),
        newest=complete[-1] if complete else None,
        revisions=len(complete),
        manual_tags=tuple(sorted({tag for one in complete for tag in one.tags if tag.startswith(MANUAL)})),
        distrusted=sum(revision.trust is Trust.DISTRUSTED for revision in complete),
        unreadable=len(damaged),
        reports=quarantine.count(directory),
        stamp=before,
    )


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _made(directory: Path) -> datetime | None:
    try:
        return Repository.open(directory).since
    except (OSError, BackyError):
        return None
