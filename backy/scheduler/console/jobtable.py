"""The table of jobs, for the console, `backy client` and `backy jobs`."""

from collections.abc import Callable, Iterable, Sequence

from backy.errors import BackyError
from backy.scheduler.monitoring.status import JobStatus
from backy.terminal.table import columns
from backy.text.phrases import NOTHING, counted, length_of_time, local_time, local_zone

LONGEST = 1000
"""Longest regular expression, in characters."""


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


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a text contains a match of `pattern`, which may be of an untrusted user.

    It takes a time that is linear in the length of the text. The syntax is that of RE2, which is Python's without
    backreferences and lookaround.

    Raises:
        BackyError: `pattern` is not a valid expression.
    """
    import re2  # not Python's `re`: that can be kept busy for years by a few characters

    if len(pattern) > LONGEST:
        raise BackyError(f"a regular expression has at most {LONGEST} characters")
    # The library would write to standard error by itself.
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except UnicodeEncodeError as error:
        raise BackyError(f"{pattern!r} is no regular expression: it is no Unicode") from error
    except re2.error as error:
        cause = error.args[0].decode(errors="replace")
        raise BackyError(f"{pattern!r} is no regular expression: {cause}") from error
    return lambda text: compiled.search(text) is not None
