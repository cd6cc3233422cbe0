"""The status file: the state of all jobs as JSON, for `backy check`, `backy jobs` and other programs.

It is replaced as a whole, so readers see one consistent state. Its members are in docs/reference/scheduler-status.md.
What it tells of the disk with the base directory is found here, too: how full that is and soon will be, and copies of
other machines.
"""

import logging
import os
from collections.abc import Container
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import msgspec

from backy.api import Consistency
from backy.durable import read_file, write_file
from backy.errors import BackyError
from backy.repository.config import CONFIG, load_job
from backy.repository.journal import Head
from backy.text.phrases import counted, size

log = logging.getLogger(__name__)
LARGEST = 2**28
"""Bytes that no status file exceeds; 10,000 jobs take some 10 MiB."""
READABLE = 0o644
"""Mode of the file. Monitoring may read it: it contains names of jobs and tags, but no data of guests."""
WEEK = timedelta(days=7)
STEP = timedelta(hours=6)
"""Pause between two samples that are kept."""
NO_END = datetime(9999, 1, 1, tzinfo=UTC)
"""End of a pause for which nobody has set one."""


class Seen(msgspec.Struct, frozen=True):
    """What was seen of one of several disks."""

    head: Head | None
    """The last line of its journal that nothing contradicts."""


class Holding(msgspec.Struct, kw_only=True):
    """What the repository of a job holds."""

    job: str
    revisions: int = 0
    last_time: datetime | None = None
    """Start of the newest complete revision that is not ahead of the clock."""
    last_tags: tuple[str, ...] = ()
    last_duration: float | None = None
    """Duration of the newest backup, in seconds."""
    manual_tags: tuple[str, ...] = ()
    """Tags that are removed by hand only."""
    quarantine_reports: int = 0
    distrusted: int = 0
    """Number of distrusted revisions."""
    wrong: int = 0
    """Number of revisions of which the source hid a change."""
    unreadable: int = 0
    """Number of damaged records."""
    verification: str | None = None
    """How much of the newest revision was compared with its source."""
    compared_since: datetime | None = None
    """Since when all of the newest revision was compared with the source; None if a part never was."""
    partly_verified: bool = False
    """Whether the verifier ran out of time."""
    consistency: Consistency | None = None
    """What the newest revision is like; None without one."""
    unfrozen: bool = False
    """Whether the source of the newest revision tried to bring the writers to rest, and could not."""
    remarks: tuple[str, ...] = ()
    """What verifiers noticed in the newest revision besides differences."""
    ahead: tuple[str, ...] = ()
    """Ids of the revisions that are ahead of the clock, the latest one last."""
    waiting: int = 0
    """Number of revisions that wait to expire, as the clock may be wrong."""
    pinned: tuple[str, ...] = ()
    """What is held because the image shrank afterwards, a line each."""
    image: int | None = None
    """Bytes of the image in the newest revision."""
    changed: int | None = None
    """Bytes that differ in it from the revision before."""
    stored: int | None = None
    """Bytes of the files that were stored for it."""
    drilled: datetime | None = None
    """When the last drill began, of any revision; None without one."""
    drill_problem: str | None = None
    """Why that has not reached the level that it was to reach."""
    first_sign: float | None = None
    """Seconds from its beginning to the first sign of life of the machine; None without one."""
    restore_seconds: float | None = None
    """Seconds in which a restore would read all data, as the drill has estimated it."""
    head: Head | None = None
    """The last line of the journal that nothing contradicts."""
    disks: dict[str, Seen] = {}
    """What was seen of the disks of a machine with several, by their names."""
    tampering: tuple[str, ...] = ()
    """What contradicts the journal, or what was seen of it before."""

    @property
    def heads(self) -> dict[str, Head]:
        """The heads by the job's name, those of disks by `JOB/DISK`."""
        found = {self.job: self.head, **{f"{self.job}/{name}": one.head for name, one in self.disks.items()}}
        return {name: head for name, head in found.items() if head}


class Remembered(Holding, kw_only=True):
    """What is known of a job, also after a restart: what its repository holds, and how its runs ended."""

    error: str | None = None
    """Why the last run, or what follows a backup, failed."""
    unfinished: bool = False
    """Whether the last backup is done, but what follows it failed."""
    failing_since: datetime | None = None
    """When the first of the runs in a row ended that were no full success; None if the last one was."""
    put_off_since: datetime | None = None
    """Since when no expiry or purge could be done, as other commands use the repository; None if the last was."""
    full: bool = False
    """Whether the last backup failed as a disk is full."""
    occupied: int | None = None
    """Bytes that the repository took after the last run; None before the first one."""
    shared: int | None = None
    """How many of these the pool has, too, and through it perhaps other repositories."""
    paused: datetime | None = None
    """Until when only an operator starts a run; `NO_END` stands for an end that nobody has set."""
    copied: datetime | None = None
    """When the last copy, scrub or drill began that came to its end; None without one, and of jobs that back up."""
    begun: datetime | None = None
    """When the scrub began that goes on within the next hours; None without one."""


class JobStatus(Remembered, kw_only=True):
    """The status of a job."""

    sla: str
    """`OK` or `TOO OLD`, as backy 2 says it."""
    sla_overdue: float
    """Seconds by which the job violates its SLA; 0 if it does not. `Status.at` has those of another time."""
    late_from: datetime
    """When the job violates its SLA without a new revision, or began to."""
    status: str
    since: datetime
    """When the job was first seen."""
    running_since: datetime | None
    """Start of the run that goes on; None if there is none."""
    interval: float
    """Shortest interval of the schedule, in seconds."""
    next_time: datetime | None
    """Time of the next run; None until the repository was scanned."""
    next_tags: tuple[str, ...]
    failures: int
    """Consecutive failed runs."""
    max_size: int | None = None
    """Bytes that the repository may take."""
    verb: str = "backup"
    """The command of the job: `backup`, `pull`, `push`, `scrub` or `drill`."""
    copy: str | None = None
    """Where the job copies to or from; None if it backs up."""


class PoolStatus(msgspec.Struct, frozen=True):
    """The use of one pool's slots."""

    running: int
    queued: int
    limit: int


class Sample(msgspec.Struct, frozen=True):
    """How much of the disk was used at a time."""

    time: datetime
    used: int


class DiskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The space of the disk with the base directory."""

    place: str
    """The base directory."""
    size: int
    free: int
    """Bytes that are left for users other than root."""
    growth: int
    """Bytes by which what is used has grown within the last week."""
    low_since: datetime | None = None
    """Since when less is left than grew within a week; None if more is."""
    samples: tuple[Sample, ...] = ()
    """What was used in the last week, the earliest first."""


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
    disk: DiskStatus | None = None
    """The disk with the base directory; None until somebody has looked, or if nobody can."""
    copies: tuple[str, ...] = ()
    """Repositories in the base directory that have no source, and are no jobs."""
    notices: dict[str, str] = {}
    """What was so when a mail told of it last: the texts, by what makes each of them another one."""

    def at(self, now: datetime) -> Self:
        """Return the status with the verdicts of `now`: a job may have become late since the file was written."""
        return msgspec.structs.replace(self, jobs=tuple([_at(job, now) for job in self.jobs]))


def verdict(late_from: datetime, now: datetime) -> dict[str, Any]:
    """Return the members of a job that tell whether it is late at `now`."""
    late = max((now - late_from).total_seconds(), 0.0)
    return {"sla": "TOO OLD" if late else "OK", "sla_overdue": late}


def _at(job: JobStatus, now: datetime) -> JobStatus:
    # Most jobs are in time, and there may be ten thousand.
    is_late = job.sla_overdue or job.late_from < now
    return msgspec.structs.replace(job, **verdict(job.late_from, now)) if is_late else job


def write(path: Path, content: bytes) -> None:
    """Replace a file as a whole, without syncing it."""
    # After a crash there will be a new one soon, and a sync every few seconds would slow down the backups.
    write_file(path, content, READABLE, durable=False)


def read(path: Path) -> Status:
    """Read the status file.

    Raises:
        FileNotFoundError: there is no such file.
        BackyError: the file is not a status file of this version.
    """
    try:
        return msgspec.json.decode(read_file(path, LARGEST), type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackyError(f"{path} is no status file of this version of backy; a scheduler makes one") from error


def left_before(path: Path) -> Status | None:
    """Return the status as an earlier scheduler left it; None if it can not be read."""
    try:
        return read(path)
    except (OSError, BackyError) as error:
        # The first start, or an update: all is found again in the repositories.
        log.info("no earlier status: %s", error)
        return None


def age_allowed(interval: float) -> timedelta:
    """Return the age of a status file from which on the scheduler counts as dead."""
    # Three intervals: a machine under load may miss one.
    return max(timedelta(minutes=5), timedelta(seconds=3 * interval))


def look(base_dir: Path) -> DiskStatus:
    """Return the size of the disk and what is free; raises OSError."""
    found = os.statvfs(base_dir)
    # What is reserved for root belongs to neither: `df` says the same.
    total = found.f_blocks - found.f_bfree + found.f_bavail
    return DiskStatus(place=str(base_dir), size=total * found.f_frsize, free=found.f_bavail * found.f_frsize, growth=0)


def judged(present: DiskStatus, before: DiskStatus | None, now: datetime) -> DiskStatus:
    """Return the present status of a disk with what the status `before` adds: growth, and whether it is low.

    It is low if less is left than was taken within the last week, so that it may be full in another one.
    """
    # Of a disk with another size nothing is known, and samples that are ahead of the clock tell nothing of a week.
    known = before.samples if before and (before.place, before.size) == (present.place, present.size) else ()
    samples = [sample for sample in known if timedelta() <= now - sample.time <= WEEK]
    used = present.size - present.free
    growth = max(used - samples[0].used, 0) if samples else 0
    if not samples or now - samples[-1].time >= STEP:
        samples.append(Sample(now, used))
    since = (before.low_since if before else None) or now
    low = present.free < growth or not present.free
    return msgspec.structs.replace(present, growth=growth, low_since=since if low else None, samples=tuple(samples))


def space(disk: DiskStatus) -> str:
    """Return what is said of the space on a disk."""
    text = f"{disk.place}: {size(disk.free)} left on the disk of {size(disk.size)}"
    if not disk.growth:
        return text if disk.free else f"{text}, which is full"
    text += f", of which {size(disk.growth)} more are used than a week ago"
    # what grew within some hours tells nothing of days; the samples are of less than a week at first
    days = (disk.samples[-1].time - disk.samples[0].time) / timedelta(days=1) if disk.samples else 0
    left = counted(int(disk.free / disk.growth * days), "day")
    return text if days < 1 else f"{text}: full in {left} if that goes on"


def copies(base_dir: Path, jobs: Container[str]) -> tuple[str, ...]:
    """Return the names of the repositories without a source, sorted, except those of `jobs`; raises OSError.

    No job backs them up: they are copies of other machines.
    """
    return tuple([one.name for one in strangers(base_dir, jobs) if is_copy(one)])


def strangers(base_dir: Path, jobs: Container[str]) -> list[Path]:
    """Return the repositories in the base directory that belong to none of `jobs`, sorted; raises OSError."""
    with os.scandir(base_dir) as entries:
        folders = sorted(one.name for one in entries if one.name not in jobs and one.is_dir(follow_symlinks=False))
    return [base_dir / name for name in folders if name[0] != "." and (base_dir / name / CONFIG).exists()]


def is_copy(directory: Path) -> bool:
    """Tell whether a repository has no source, so that no job backs it up."""
    # what can not be read counts as nothing, and a job would tell of it
    with suppress(BackyError, OSError):
        return load_job(directory / CONFIG).source is None
    return False
