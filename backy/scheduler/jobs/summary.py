"""Summaries of repositories for the scheduler, read again only if a repository has changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from backy.errors import BackyError
from backy.integrity import quarantine
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.retention.brake import read_mark
from backy.retention.schedule import MANUAL, Past

Stamp = tuple[int, int]
"""Times of the last change of a repository and of its quarantine, in nanoseconds."""


@dataclass(frozen=True)
class Summary:
    """What the scheduler needs to know of a repository."""

    past: Past
    newest: Revision | None = None
    """The newest revision."""
    revisions: int = 0
    """Number of revisions."""
    manual_tags: tuple[str, ...] = ()
    """Tags that are removed by hand only."""
    distrusted: int = 0
    """Number of revisions that are distrusted or wrong."""
    unreadable: int = 0
    """Number of damaged records."""
    reports: int = 0
    """Number of reports in the quarantine."""
    waiting: int = 0
    """Number of revisions that wait to expire."""
    stamp: Stamp = (0, 0)

    @property
    def duration(self) -> float | None:
        """Duration of the newest backup, in seconds."""
        return self.newest.statistics.duration if self.newest else None


def stamp(directory: Path) -> Stamp:
    """Return when a repository was changed; zeroes if there is none."""
    # Every change of a record creates, renames or removes a file, which changes the time of its directory.
    return _changed(directory), _changed(directory / quarantine.FOLDER)


def summarize(directory: Path, since: datetime, limit: datetime) -> Summary:
    """Read all records of a repository, which may be missing still.

    A job without revisions exists since its repository was created, or since `since` if there is none. Revisions that
    began after `limit` are ahead of the clock.
    """
    before = stamp(directory)  # first, so that a change during this scan is noticed by the next one
    revisions, damaged = Records(directory).survey()
    past = Past.of(revisions, since, limit)
    if past.newest is None:
        past = replace(past, since=min(_made(directory) or since, limit))
    mark = read_mark(directory)
    return Summary(
        past=past,
        newest=revisions[-1] if revisions else None,
        revisions=len(revisions),
        manual_tags=tuple(sorted({tag for one in revisions for tag in one.tags if tag.startswith(MANUAL)})),
        distrusted=sum(revision.doubtful for revision in revisions),
        unreadable=len(damaged),
        reports=quarantine.count(directory),
        waiting=mark.waiting if mark else 0,
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
