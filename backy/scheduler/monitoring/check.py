"""The verdict of `backy check`: state, summary, performance data and details in the format of Nagios plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from backy.config import format_duration
from backy.errors import BackyError
from backy.repository.revision import utc_now
from backy.scheduler.configuration.configuration import load_location
from backy.scheduler.monitoring.status import JobStatus, Status, age_allowed, read
from backy.text.phrases import counted, local_time

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
    """Return the verdict on the status file that `configuration` names."""
    try:
        path = load_location(configuration).status_path
        # Taken before the content: a file that is replaced in between counts as older than it is, never as newer.
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        status = read(path)
    except FileNotFoundError as error:
        return Verdict(State.UNKNOWN, f"No status file found at {error.filename}")
    except (BackyError, OSError) as error:
        return Verdict(State.UNKNOWN, str(error))
    return judge(status, clock() - written)


def judge(status: Status, age: timedelta) -> Verdict:
    """Return the verdict on a status file of this age."""
    performance = _performance(status)
    allowed = age_allowed(status.interval)
    # An outdated file says nothing about the jobs, however good they look in it.
    if age > allowed:
        minutes = allowed // timedelta(minutes=1)
        return Verdict(State.CRITICAL, f"Status file is older than {counted(minutes, 'minute')}", performance)
    overdue = [job for job in status.jobs if job.sla_overdue]
    warnings = [*_general(status), *(line for job in status.jobs for line in _warnings(job, status.written + age))]
    if overdue:
        # Late jobs decide the state, but the warnings are printed as well: one may be the cause.
        summary = f"{counted(len(overdue), 'job')} not within SLA"
        lines = [late(job) for job in overdue]
        return Verdict(State.CRITICAL, summary, performance, (*_first(lines), *_first(warnings)))
    summary = f"{counted(len(status.jobs), 'job')} within SLA"
    if warnings:
        return Verdict(
            State.WARNING, f"{summary}, {counted(len(warnings), 'warning')}", performance, tuple(_first(warnings))
        )
    return Verdict(State.OK, summary, performance)


def late(job: JobStatus) -> str:
    """Return what is said of a job that does not keep its SLA."""
    return f"{job.job} (last time: {local_time(job.last_time, zone=True)}{_why(job)})"


def _general(status: Status) -> Iterator[str]:
    """Yield the warnings about the scheduler itself."""
    if status.configuration_error:
        since = local_time(status.loaded, zone=True)
        yield f"the configuration as of {since} is in force, for the newer one is wrong: {status.configuration_error}"
    yield from status.problems
    for plugin in status.plugins:
        yield f"broken plugin: {plugin}"


def _warnings(job: JobStatus, now: datetime) -> Iterator[str]:
    """Yield the warnings about a job, which may keep its SLA all the same."""
    if job.unfinished and job.error:
        yield f"{job.job}: {job.error}"
    if job.running_since and now - job.running_since > timedelta(seconds=job.interval):
        since, interval = local_time(job.running_since, zone=True), format_duration(timedelta(seconds=job.interval))
        yield f"{job.job}: its run of {since} takes longer than its interval of {interval}"
    if job.quarantine_reports:
        yield f"{job.job}: {counted(job.quarantine_reports, 'report')} of damage or differences in quarantine"
    if job.partly_verified:
        yield f"{job.job}: the newest revision is {job.verification}"
    if job.remarks:
        more = f" and {counted(len(job.remarks) - 1, 'more remark')}" if len(job.remarks) > 1 else ""
        yield f"{job.job}: a verifier remarks on the newest revision: {job.remarks[0]}{more}"
    if job.unfrozen:
        yield f"{job.job}: the newest revision is inconsistent: the source could not be brought to rest"
    elif job.consistency == "none":
        yield f"{job.job}: the newest revision is inconsistent: the source was written to while it was read"
    yield from _revisions(job)


def _revisions(job: JobStatus) -> Iterator[str]:
    """Yield the warnings about revisions of a job, its older ones included."""
    if job.distrusted:
        yield f"{job.job}: {counted(job.distrusted, 'revision is', 'revisions are')} distrusted"
    if job.ahead:
        more = f" and {len(job.ahead) - 1} more" if len(job.ahead) > 1 else ""
        yield f"{job.job}: ahead of the clock, so that the schedule does not count it: revision {job.ahead[-1]}{more}"
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
    }
    return " ".join(f"{name}={value}" for name, value in figures.items())


def _why(job: JobStatus) -> str:
    return f", {counted(job.failures, 'failure')}: {job.error}" if job.failures and job.error else ""


def _first(lines: list[str]) -> Iterator[str]:
    """Yield the first `MOST_LINES` lines and how many more there are."""
    # A vertical bar would begin performance data.
    yield from (line.replace("|", "/") for line in lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        yield f"... and {len(lines) - MOST_LINES} more; 'backy jobs' shows all"
