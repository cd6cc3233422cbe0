"""The table of jobs, for the console, `backy client` and `backy jobs`."""

from collections.abc import Callable, Iterable, Sequence

from backy.errors import BackyError
from backy.scheduler.monitoring.status import JobStatus
from backy.terminal.table import CAUSE, table
from backy.text.phrases import TO_MINUTES, counted, length_of_time, local_time, local_zone

_BRIEF = {"waiting for deadline": "waiting", "waiting for worker slot": "queued"}
"""States in fewer words."""

LONGEST = 1000
"""Longest regular expression, in characters."""


def selected(jobs: Iterable[JobStatus], pattern: str = "", *, failed: bool = False) -> list[JobStatus]:
    """Return the jobs whose name contains a match of `pattern`; if `failed` is true, only those that fail now.

    Raises:
        BackyError: `pattern` is no regular expression.
    """
    matches = matcher(pattern) if pattern else bool
    return [job for job in jobs if matches(job.job) and (job.failing_since or not failed)]


def job_table(jobs: Sequence[JobStatus], width: int | None = None, *, wide: bool = False) -> str:
    """Return a table of jobs and their number; it has all columns if it is `wide`, and fits into `width` if not."""
    # The zone is in the heading: in each line it would cost a column.
    zone = local_zone(job.last_time for job in jobs)
    end = None if wide else TO_MINUTES
    shown: dict[str, Callable[[JobStatus], str | None]] = {
        "Job": lambda job: job.job,
        "State": lambda job: f"{'late, ' if job.sla_overdue else ''}{_BRIEF.get(job.status, job.status)}",
        f"Last ({zone})": lambda job: local_time(job.last_time)[:end],
        f"Next ({zone})": lambda job: local_time(job.next_time)[:end],
    }
    details: dict[str, Callable[[JobStatus], str | None]] = {
        "Overdue": lambda job: length_of_time(job.sla_overdue or None),  # 0 means in time
        "Took": lambda job: length_of_time(job.last_duration),
        "Last tags": lambda job: ", ".join(job.last_tags),
        "Next tags": lambda job: ", ".join(job.next_tags),
    }
    shown |= {**(details if wide else {}), CAUSE: lambda job: job.error}
    lines = table(jobs, shown, ["Overdue", "Took"], ["Job", "State"], width)
    return f"{lines}\n{counted(len(jobs), 'job')}"


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
    except (UnicodeEncodeError, re2.error) as error:
        cause = "it is no Unicode" if isinstance(error, UnicodeError) else error.args[0].decode(errors="replace")
        raise BackyError(f"{pattern!r} is no regular expression: {cause}") from error
    return lambda text: compiled.search(text) is not None
