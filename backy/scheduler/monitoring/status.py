"""The status file: the state of all jobs as JSON, for `backy check`, `backy jobs` and other programs.

It is replaced as a whole, so readers see one consistent state. Its members are in docs/reference/scheduler-status.md.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from backy.api import Consistency
from backy.errors import BackyError

log = logging.getLogger(__name__)
READABLE = 0o644
"""Mode of the file. Monitoring may read it: it contains names of jobs and tags, but no data of guests."""


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a job."""

    job: str
    sla: str
    """`OK` or `TOO OLD`, as backy 2 says it."""
    sla_overdue: float
    """Seconds by which the job violates its SLA; 0 if it does not."""
    status: str
    since: datetime
    """When the job was first seen."""
    running_since: datetime | None
    """Start of the run that goes on; None if there is none."""
    interval: float
    """Shortest interval of the schedule, in seconds."""
    revisions: int
    last_time: datetime | None
    """Start of the newest complete revision that is not ahead of the clock."""
    last_tags: tuple[str, ...]
    last_duration: float | None
    """Duration of the newest backup, in seconds."""
    next_time: datetime | None
    """Time of the next run; None until the repository was scanned."""
    next_tags: tuple[str, ...]
    failures: int
    """Consecutive failed runs."""
    error: str | None
    """Why the last run, or what follows a backup, failed."""
    unfinished: bool
    """Whether the last backup is done, but what follows it failed."""
    manual_tags: tuple[str, ...]
    """Tags that are removed by hand only."""
    quarantine_reports: int
    distrusted: int
    """Number of distrusted revisions."""
    unreadable: int
    """Number of damaged records."""
    verification: str | None
    """How much of the newest revision was compared with its source."""
    partly_verified: bool
    """Whether the verifier ran out of time."""
    consistency: Consistency | None
    """What the newest revision is like; None without one."""
    unfrozen: bool
    """Whether the source of the newest revision tried to bring the writers to rest, and could not."""
    remarks: tuple[str, ...] = ()
    """What verifiers noticed in the newest revision besides differences."""
    ahead: tuple[str, ...] = ()
    """Ids of the revisions that are ahead of the clock, the latest one last."""
    waiting: int = 0
    """Number of revisions that wait to expire, as the clock may be wrong."""


class PoolStatus(msgspec.Struct, frozen=True):
    """The use of one pool's slots."""

    running: int
    queued: int
    limit: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the status file."""

    version: str
    """Version of backy."""
    pid: int
    started: datetime
    written: datetime
    interval: float
    """Longest time until the file is written again, in seconds."""
    configuration: str
    """Path of the configuration."""
    loaded: datetime
    """When the configuration in force was read."""
    configuration_error: str | None
    """Why a newer configuration is not in force, or None."""
    console: tuple[str, ...]
    """Addresses at which the console listens."""
    problems: tuple[str, ...]
    """Problems of the scheduler itself."""
    plugins: tuple[str, ...]
    """Broken plugins, each with the cause."""
    pools: dict[str, PoolStatus]
    jobs: tuple[JobStatus, ...]
    """Sorted by name."""


def write(path: Path, content: bytes, mode: int = READABLE) -> None:
    """Replace a file atomically, without syncing it."""
    # After a crash there will be a new one soon, and a sync every few seconds would slow down the backups.
    temporary = path.with_name(f".{path.name}.tmp")
    # A leftover of a crash. O_EXCL and O_NOFOLLOW below: nobody can direct this to another file meanwhile.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            # Not by open(), whose mode the umask restricts.
            os.fchmod(stream.fileno(), mode)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: Path) -> Status:
    """Read the status file.

    Raises:
        FileNotFoundError: there is no such file.
        BackyError: the file is not a status file of this version.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackyError(f"{path} is no status file of this version of backy: {error}") from error


def known_before(path: Path) -> dict[str, JobStatus]:
    """Return the statuses of the jobs as an earlier scheduler left them; nothing if they can not be read."""
    try:
        return {job.job: job for job in read(path).jobs}
    except (OSError, BackyError) as error:
        # The first start, or an update: all is found again in the repositories.
        log.info("no earlier status: %s", error)
        return {}


def age_allowed(interval: float) -> timedelta:
    """Return the age of a status file from which on the scheduler counts as dead."""
    # Three intervals: a machine under load may miss one.
    return max(timedelta(minutes=5), timedelta(seconds=3 * interval))
