"""The status file: what the scheduler knows of all jobs, as JSON, for `backy check`, `backy jobs` and whoever else.

It is replaced as a whole, so whoever reads it sees one state. Its members are in docs/reference/scheduler-status.md.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from backy.errors import BackyError

log = logging.getLogger(__name__)
READABLE = 0o644
"""Monitoring may read it: it has names of jobs and tags, and nothing of any guest."""


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A job at the time when the file was written."""

    job: str
    sla: str
    """`OK` or `TOO OLD`, as backy 2 says it."""
    sla_overdue: float
    """Seconds that the job is behind its SLA, 0 while it keeps it."""
    status: str
    since: datetime
    """When the job became known."""
    revisions: int
    last_time: datetime | None
    """Start of the newest complete revision."""
    last_tags: tuple[str, ...]
    last_duration: float | None
    """Seconds that it took."""
    next_time: datetime | None
    """When it runs next; None as long as its revisions were not looked at."""
    next_tags: tuple[str, ...]
    failures: int
    """In a row."""
    error: str | None
    """Why the last run failed."""
    manual_tags: tuple[str, ...]
    """Tags that expire by hand only."""
    quarantine_reports: int
    distrusted: int
    """Revisions that are distrusted."""
    unreadable: int
    """Records that are damaged."""
    verification: str | None
    """How far the newest revision was compared with its source."""
    partly_verified: bool
    """Whether that was less than it was meant to be."""
    consistent: bool
    """False if the newest revision is of a source that could not be brought to rest."""


class PoolStatus(msgspec.Struct, frozen=True):
    """The slots of one pool."""

    running: int
    queued: int
    limit: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the status file."""

    version: str
    """Of backy."""
    pid: int
    started: datetime
    written: datetime
    interval: float
    """Seconds until the file is written again, at the latest."""
    configuration: str
    """Path of the configuration that is in force."""
    loaded: datetime
    """When that was read."""
    configuration_error: str | None
    """Why a newer one is not in force."""
    console: tuple[str, ...]
    """Where it listens."""
    problems: tuple[str, ...]
    """What the scheduler itself can not do."""
    plugins: tuple[str, ...]
    """Plugins that are broken, and why."""
    pools: dict[str, PoolStatus]
    jobs: tuple[JobStatus, ...]
    """In order of their names."""


def write(path: Path, content: bytes, mode: int = READABLE) -> None:
    """Replace a file in one step. It is not synced: after a crash there will be a new one soon."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: Path) -> Status:
    """Read the status file.

    Raises:
        FileNotFoundError: there is none.
        BackyError: it is none of this version.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackyError(f"{path} is no status file of this version of backy: {error}") from error


def known_before(path: Path) -> dict[str, JobStatus]:
    """Return what an earlier scheduler knew of the jobs; nothing if it left no status that can be read."""
    try:
        return {job.job: job for job in read(path).jobs}
    except (OSError, BackyError) as error:
        log.info("nothing is known from before: %s", error)
        return {}


def age_allowed(interval: float) -> timedelta:
    """Return how old a status file may be before the scheduler counts as dead."""
    return max(timedelta(minutes=5), timedelta(seconds=3 * interval))
