"""Summaries of repositories for the scheduler, read again only if a repository has changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backy.errors import BackyError
from backy.integrity import quarantine
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Trust
from backy.retention.schedule import MANUAL, Past

Stamp = tuple[int, int]
"""Times of the last change of a repository and of its quarantine, in nanoseconds."""


@dataclass(frozen=True)
class Summary:
    """What the scheduler needs to know of a repository."""

    past: Past
    newest: Revision | None = None
    """The newest complete revision."""
    revisions: int = 0
    """Number of complete revisions."""
    manual_tags: tuple[str, ...] = ()
    """Tags that are removed by hand only."""
    distrusted: int = 0
    """Number of distrusted revisions."""
    unreadable: int = 0
    """Number of damaged records."""
    reports: int = 0
    """Number of reports in the quarantine."""
    stamp: Stamp = (0, 0)

    @property
    def duration(self) -> float | None:
        """Duration of the newest backup, in seconds."""
        return self.newest.statistics.duration if self.newest and self.newest.statistics else None


def stamp(directory: Path) -> Stamp:
    """Return when a repository was changed; zeroes if there is none."""
    # Every change of a record creates, renames or removes a file, which changes the time of its directory.
    return _changed(directory), _changed(directory / quarantine.FOLDER)


def summarize(directory: Path, since: datetime) -> Summary:
    """Read all records of a repository, which may be missing still.

    A job without revisions exists since its repository was created, or since `since` if there is none.
    """
    before = stamp(directory)  # first, so that a change during this scan is noticed by the next one
    sound, damaged = Records(directory).survey()
    # Backups that are under way or were interrupted count for nothing.
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
