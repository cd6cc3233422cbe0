"""The verdict of `backy check`: state, summary, performance data and details in the format of Nagios plugins."""

from collections.abc import Callable, Iterator, Sized
from datetime import datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from backy.config import format_duration
from backy.errors import BackyError
from backy.repository.revision import utc_now
from backy.scheduler.monitoring.disk import shortage
from backy.scheduler.monitoring.recorded import Recorded, recorded
from backy.scheduler.monitoring.status import JobStatus, Status
from backy.text.phrases import counted, local_time, size

PUT_OFF = timedelta(days=7)
"""How long nobody needs to know that expiry and purge wait: a mount or a restore may take days."""

NEARLY = 0.9
"""Part of its `max-size` from which on a repository is warned of."""

MOST_LINES = 50
"""Details of this many jobs are printed; the others are counted."""


class State(IntEnum):
    """The states of a check. Each value is an exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class Verdict(NamedTuple):
    """The result of a check."""

    state: State
    summary: str
    performance: str = ""
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        first = f"{self.state.name}: {self.summary}" + (f" | {self.performance}" if self.performance else "")
        return "\n".join([first, *self.details])


def examine(configuration: Path, clock: Callable[[], datetime] = utc_now) -> Verdict:
    """Return the verdict on the scheduler of `configuration` and its jobs, as of now."""
    try:
        return judge(recorded(configuration, clock))
    except (BackyError, OSError) as error:
        return Verdict(State.UNKNOWN, str(error))


def judge(found: Recorded) -> Verdict:
    """Return the verdict on what is known of a scheduler."""
    status = found.status
    performance = _performance(status)
    # An outdated file says nothing about the jobs, however good they look in it.
    if found.stale:
        return Verdict(State.CRITICAL, found.stale, performance)
    overdue = [job for job in status.jobs if job.sla_overdue]
    warnings = [
        # Not critical as long as the file is new: a restart takes some seconds.
        *filter(None, [found.silence]),
        *_general(status),
        # Before all that is less urgent: of each kind, so many lines are printed.
        *(line for job in status.jobs for line in _failing(job)),
        *(line for job in status.jobs for line in _warnings(job, found.now)),
    ]
    tampered = [line for job in status.jobs for line in _tampering(job)]
    worst: dict[str, Sized] = {
        "changed by somebody else than backy": tampered,
        "not within SLA": overdue,
        "not backed up, as the disk is full": [job for job in status.jobs if job.full],
    }
    critical = [f"{counted(len(found), 'job')} {how}" for how, found in worst.items() if found]
    within = f"{counted(len(status.jobs), 'job')} within SLA"
    if status.copies:
        within += f" and {counted(len(status.copies), 'copy', 'copies')}"
    summary = ", ".join(critical) or (f"{within}, {counted(len(warnings), 'warning')}" if warnings else within)
    # Warnings are printed whatever decides: one may be the cause. The heads of the journals come last, each time: who
    # keeps the output of checks can tell later that a journal was written anew.
    heads = [line for job in status.jobs for line in _head(job)]
    details = [line for kind in (tampered, [*map(late, overdue)], warnings, heads) for line in _first(kind)]
    state = State.CRITICAL if critical else State.WARNING if warnings else State.OK
    return Verdict(state, summary, performance, tuple(details))


def _tampering(job: JobStatus) -> Iterator[str]:
    """Yield what contradicts the journal of a job."""
    more = f" and {counted(len(job.tampering) - 1, 'more finding')}" if len(job.tampering) > 1 else ""
    yield from (f"{job.job}: {finding}{more}" for finding in job.tampering[:1])


def _head(job: JobStatus) -> Iterator[str]:
    """Yield the last line of the journal of a job, or of each of its disks."""
    for name, head in job.heads.items():
        yield f"{name}: journal {head.job} {head.number} {head.hash}"


def late(job: JobStatus) -> str:
    """Return what is said of a job that does not keep its SLA."""
    return f"{job.job} (last time: {local_time(job.last_time, zone=True)}{_why(job)})"


def _general(status: Status) -> Iterator[str]:
    """Yield the warnings about the scheduler itself."""
    if status.configuration_error:
        since = local_time(status.loaded, zone=True)
        yield f"the configuration as of {since} is in force, for the newer one is wrong: {status.configuration_error}"
    if status.disk and status.disk.low_since:
        yield shortage(status.disk)
    yield from status.problems
    for plugin in status.plugins:
        yield f"broken plugin: {plugin}"


def _failing(job: JobStatus) -> Iterator[str]:
    """Yield what fails of a job, from the first failure on."""
    if job.failing_since and not (job.sla_overdue and job.failures):
        since = local_time(job.failing_since, zone=True)
        times = f", {counted(job.failures, 'time')} in a row" if job.failures else ""
        yield f"{job.job}: fails since {since}{times}: {job.error}"


def _warnings(job: JobStatus, now: datetime) -> Iterator[str]:
    """Yield the warnings about a job, which may keep its SLA all the same."""
    if job.put_off_since and now - job.put_off_since > PUT_OFF:
        since = local_time(job.put_off_since, zone=True)
        yield f"{job.job}: nothing is expired or purged since {since}: other commands use the repository"
    if job.running_since and now - job.running_since > timedelta(seconds=job.interval):
        since, interval = local_time(job.running_since, zone=True), format_duration(timedelta(seconds=job.interval))
        yield f"{job.job}: its run of {since} takes longer than its interval of {interval}"
    if job.max_size and job.occupied is not None and job.occupied >= job.max_size * NEARLY:
        yield f"{job.job}: its repository takes {size(job.occupied)}, and max-size is {size(job.max_size)}"
    if job.quarantine_reports:
        yield f"{job.job}: {counted(job.quarantine_reports, 'report')} of damage or differences in quarantine"
    if job.partly_verified:
        since = local_time(job.compared_since, zone=True)
        earlier = f"all was compared since {since}" if job.compared_since else "a part of it never was"
        yield f"{job.job}: the newest revision is {job.verification}; {earlier}"
    if job.remarks:
        more = f" and {counted(len(job.remarks) - 1, 'more remark')}" if len(job.remarks) > 1 else ""
        yield f"{job.job}: a remark on the newest revision: {job.remarks[0]}{more}"
    if job.unfrozen:
        yield f"{job.job}: the newest revision is inconsistent: the source could not be brought to rest"
    elif job.consistency == "none":
        yield f"{job.job}: the newest revision is inconsistent: the source was written to while it was read"
    yield from _revisions(job)


def _revisions(job: JobStatus) -> Iterator[str]:
    """Yield the warnings about revisions of a job, its older ones included."""
    if job.distrusted:
        yield f"{job.job}: {counted(job.distrusted, 'revision is', 'revisions are')} distrusted"
    if job.wrong:
        what = counted(job.wrong, "revision is", "revisions are")
        yield f"{job.job}: {what} wrong: the source hid a change, 'backy status' names them"
    if job.ahead:
        more = f" and {len(job.ahead) - 1} more" if len(job.ahead) > 1 else ""
        yield f"{job.job}: ahead of the clock, so that the schedule does not count it: revision {job.ahead[-1]}{more}"
    for line in job.pinned:
        yield f"{job.job}: {line}"
    if job.waiting:
        yield f"{job.job}: {counted(job.waiting, 'revision waits', 'revisions wait')} to expire"
    if job.unreadable:
        yield f"{job.job}: {counted(job.unreadable, 'record is', 'records are')} damaged"


def _performance(status: Status) -> str:
    """Return the figures as `name=value[unit]`."""
    # Programs that draw graphs match figures by position: add new ones at the end.
    jobs = status.jobs
    figures = {
        "jobs": len(jobs),
        "overdue": sum(job.sla_overdue > 0 for job in jobs),
        "most_overdue": f"{max((job.sla_overdue for job in jobs), default=0):.0f}s",
        "failing": sum(job.failures > 0 for job in jobs),
        "running": sum(pool.running for pool in status.pools.values()),
        "queued": sum(pool.queued for pool in status.pools.values()),
        "quarantine_reports": sum(job.quarantine_reports for job in jobs),
        "distrusted": sum(job.distrusted for job in jobs),
        "wrong": sum(job.wrong for job in jobs),
        **({"free": f"{status.disk.free}B"} if status.disk else {}),
        **({"copies": len(status.copies)} if status.copies else {}),
    }
    return " ".join(f"{name}={value}" for name, value in figures.items())


def _why(job: JobStatus) -> str:
    since = f" since {local_time(job.failing_since, zone=True)}" if job.failing_since else ""
    failures = f"{counted(job.failures, 'failure')}{since}: " if job.failures else ""
    return f", {failures}{job.error}" if job.error else ""


def _first(lines: list[str]) -> Iterator[str]:
    """Yield the first `MOST_LINES` lines and how many more there are."""
    # A vertical bar would begin performance data.
    yield from (line.replace("|", "/") for line in lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        yield f"... and {len(lines) - MOST_LINES} more; 'backy jobs --json' shows all"
