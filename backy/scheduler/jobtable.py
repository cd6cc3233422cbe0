"""The table of jobs, as the console, `backy client` and `backy jobs` print it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from backy.scheduler.patterns import matcher
from backy.scheduler.status import JobStatus
from backy.text.table import table


def selected(jobs: Iterable[JobStatus], pattern: str = "") -> list[JobStatus]:
    """Return the jobs whose name has a match of a regular expression; raises BackyError if it is none."""
    if not pattern:
        return list(jobs)
    matches = matcher(pattern)
    return [job for job in jobs if matches(job.job)]


def job_table(jobs: Sequence[JobStatus], *, round_corners: bool = False) -> str:
    """Return a table of jobs and how many there are."""
    zone = next((job.last_time.astimezone().tzname() for job in jobs if job.last_time), None) or "UTC"
    headings = ["Job", "SLA", "SLA overdue", "Status", f"Last Backup ({zone})", "Last Tags", "Last Duration"]
    headings += [f"Next Backup ({zone})", "Next Tags"]
    right = ["SLA overdue", "Last Duration"]
    return f"{table(headings, [_row(job) for job in jobs], right, round_corners=round_corners)}\n{len(jobs)} jobs shown"


def _row(job: JobStatus) -> list[str]:
    return [
        job.job,
        job.sla,
        _length(job.sla_overdue) if job.sla_overdue else "-",
        job.status,
        _time(job.last_time),
        ",".join(job.last_tags) or "-",
        "-" if job.last_duration is None else _length(job.last_duration),
        _time(job.next_time),
        ",".join(job.next_tags) or "-",
    ]


def _time(moment: datetime | None) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}" if moment else "-"


def _length(seconds: float) -> str:
    """Return a length of time as days, hours, minutes and seconds, a short one with a digit more."""
    length = timedelta(seconds=round(seconds))
    return str(length) if length >= timedelta(minutes=1) else f"{seconds:.1f} s"
