"""Tells event plugins what the scheduler knows: how each run ended, and which jobs do not keep their SLA."""

import logging
import queue
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from backy.api import Job
from backy.errors import BackyError
from backy.plugins.contract import ARGUMENTS
from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.scheduler.monitoring.check import late
from backy.scheduler.monitoring.status import JobStatus
from backy.text.phrases import local_time

log = logging.getLogger(__name__)
MOST_WAITING = 10_000
"""Number of events that wait for plugins at most; further ones are logged and lost."""

PATIENCE = timedelta(seconds=10)
"""How long the end of the scheduler waits for plugins."""


class Announcer:
    """Tells plugins in a thread of its own, so that no job waits for them."""

    def __init__(self, events: Callable[[], Events], clock: Callable[[], datetime] = utc_now) -> None:
        """Make an announcer; `events` makes those of the installed plugins, with the sections that are in force."""
        self._clock = clock
        self._events = events
        self._waiting: queue.Queue[tuple[str, Path, Mapping[str, object]] | None] = queue.Queue(MOST_WAITING)
        """Hooks, directories of jobs, and arguments."""
        self._failures: dict[str, tuple[datetime, str]] = {}
        """By job, what plugins failed in that were told last of it, and since when."""
        # A daemon: a plugin that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="announcer", daemon=True)

    def tell(self, hook: str, directory: Path, **arguments: object) -> None:
        """Tell plugins of an event of the job in `directory`, later. A hook that has no job gets it as the place."""
        if not self._thread.is_alive():
            self._thread.start()
        try:
            self._waiting.put_nowait((hook, directory, arguments))
        except queue.Full:
            text = f"no plugin is told of {hook}: too many events wait for them"
            log.warning("%s: %s", directory.name, text)
            self._note(directory.name, text)

    def problems(self, names: Container[str]) -> Iterator[str]:
        """Yield what plugins failed in that were told of jobs with these names."""
        for name, (since, text) in sorted(self._failures.copy().items()):
            if name in names:
                yield f"{name}: since {local_time(since, zone=True)}: {text}"

    def close(self) -> None:
        """Wait a while until all is told."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(PATIENCE.total_seconds())
            if self._thread.is_alive():
                log.warning("event plugins were not told of everything: they take too long")

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            hook, directory, arguments = first
            try:
                with self._events() as events:
                    where = {"job": _job(directory)} if "job" in ARGUMENTS[hook] else {"place": str(directory)}
                    events.tell(hook, **where, **arguments)
                failure = next(iter(events.failures), None)
            except Exception as error:
                # One event that can not be told must not silence all later ones.
                log.exception("event plugins can not be told")
                failure = f"event plugins can not be told of {hook}: {error}"
            self._note(directory.name, failure)

    def _note(self, job: str, failure: str | None) -> None:
        """Remember what failed when plugins were told last of a job, or that nothing did."""
        if failure is None:
            self._failures.pop(job, None)
        else:
            since, _ = self._failures.get(job, (self._clock(), ""))
            self._failures[job] = since, failure


def _job(directory: Path) -> Job:
    """Return the job in `directory`, whose repository may be missing or broken."""
    try:
        return Repository.open(directory).job
    except (BackyError, OSError):
        return Job(directory.name, directory.name, directory)


class SlaWatch:
    """Remembers which jobs are overdue, so that each change is told once."""

    def __init__(self, before: Mapping[str, JobStatus], written: datetime) -> None:
        """Begin with the jobs that were overdue for an earlier scheduler."""
        self._since = {
            name: written - timedelta(seconds=job.sla_overdue) for name, job in before.items() if job.sla_overdue
        }

    def changes(self, jobs: Iterable[JobStatus], now: datetime) -> Iterator[tuple[str, str, datetime, str]]:
        """Yield what has changed since the last call: hooks, names of jobs, since when, and texts."""
        for job in jobs:
            if job.sla_overdue and job.job not in self._since:
                since = self._since[job.job] = now - timedelta(seconds=job.sla_overdue)
                yield "backy_job_overdue", job.job, since, f"{late(job)} is not within SLA"
            elif not job.sla_overdue and job.job in self._since:
                since = self._since.pop(job.job)
                yield "backy_job_recovered", job.job, since, f"{job.job} is within SLA again"
