"""The table of jobs, for the console, `backy client` and `backy jobs`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from backy.scheduler.console.patterns import matcher
from backy.scheduler.monitoring.status import JobStatus
from backy.terminal.table import columns
from backy.text.phrases import NOTHING, counted, length_of_time, local_time, local_zone


def selected(jobs: Iterable[JobStatus], pattern: str = "") -> list[JobStatus]:
    """Return the jobs whose name contains a match of `pattern`. Raise BackyError if that is no regular expression."""
    if not pattern:
        return list(jobs)
    matches = matcher(pattern)
    return [job for job in jobs if matches(job.job)]


def job_table(jobs: Sequence[JobStatus], *, round_corners: bool = False) -> str:
    """Return a table of jobs and their number."""
    # The zone is in the heading: in each line it would cost a column.
    zone = local_zone(job.last_time for job in jobs)
    shown: dict[str, Callable[[JobStatus], str]] = {
        "Job": lambda job: job.job,
        "SLA": lambda job: job.sla,
        "SLA overdue": lambda job: length_of_time(job.sla_overdue or None),  # 0 means in time
        "Status": lambda job: job.status,
        f"Last Backup ({zone})": lambda job: local_time(job.last_time),
        "Last Tags": lambda job: ",".join(job.last_tags) or NOTHING,
        "Last Duration": lambda job: length_of_time(job.last_duration),
        f"Next Backup ({zone})": lambda job: local_time(job.next_time),
        "Next Tags": lambda job: ",".join(job.next_tags) or NOTHING,
    }
    lines = columns(jobs, shown, ["SLA overdue", "Last Duration"], round_corners=round_corners)
    return f"{lines}\n{counted(len(jobs), 'job')} shown"
