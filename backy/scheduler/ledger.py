"""What the scheduler knows of its jobs: what is configured, what is planned, what their repositories hold."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgspec

from backy.schedule import by_interval, overdue
from backy.scheduler.agenda import Agenda, Entry, Pool
from backy.scheduler.config import Configuration, JobEntry
from backy.scheduler.status import JobStatus, PoolStatus
from backy.scheduler.summary import Summary


@dataclass(eq=False)
class Job:
    """A job while it is configured."""

    settings: JobEntry
    entry: Entry
    before: JobStatus | None
    """What an earlier scheduler knew of it, which is shown until its repository was looked at."""
    summary: Summary | None = None
    error: str | None = None
    """Why the last run failed, or what could not be done after it."""
    task: asyncio.Task[None] | None = None
    """The run that is under way."""
    row: JobStatus | None = field(default=None, repr=False)
    """The last status, to be used again as long as nothing has changed."""

    @property
    def newest(self) -> str | None:
        """The id of the newest revision."""
        return self.summary.newest.id if self.summary and self.summary.newest else None


class Changes(NamedTuple):
    """What a new configuration means for the jobs."""

    added: list[Job]
    ended: list[Job]
    """Jobs that are gone, or have another source or storage: what runs for them is to be ended."""


class Ledger:
    """All jobs of the configuration that is in force."""

    def __init__(self, worker_limit: int) -> None:
        self.agenda = Agenda(worker_limit)
        self.jobs: dict[str, Job] = {}

    def apply(self, configuration: Configuration, before: Mapping[str, JobStatus], now: datetime) -> Changes:
        """Put a configuration into force; jobs that are not there yet are shown as `before` has them."""
        self.agenda.worker_limit = configuration.settings.worker_limit
        wanted = configuration.jobs
        ended = [self._remove(name) for name in self.jobs.keys() - wanted.keys()]
        added = [
            self._add(settings, before.get(name), now) for name, settings in wanted.items() if name not in self.jobs
        ]
        for name, settings in wanted.items():
            job = self.jobs[name]
            if (settings.source, settings.storage) != (job.settings.source, job.settings.storage):
                ended.append(job)
            if settings.schedule != job.settings.schedule:
                self.agenda.reschedule(name, settings.schedule, now)
            if settings != job.settings:
                job.settings, job.row = settings, None
        self.jobs = {name: self.jobs[name] for name in sorted(self.jobs)}
        return Changes(added, ended)

    def learn(self, job: Job, summary: Summary, now: datetime) -> None:
        """Take note of what a job's repository holds."""
        job.summary = summary
        self.agenda.learn(job.settings.name, summary.past, summary.duration, now)
        job.row = None

    def rows(self, now: datetime) -> Iterator[JobStatus]:
        """Yield the status of every job, in order of their names."""
        for job in self.jobs.values():
            if job.row is None or job.row.sla_overdue or job.row.status != str(job.entry) or _is_late(job, now):
                job.row = _row(job, now)
            yield job.row

    def pools(self) -> dict[str, PoolStatus]:
        """Return how the pools are used."""
        agenda = self.agenda
        return {str(pool): PoolStatus(agenda.running(pool), agenda.queued(pool), agenda.worker_limit) for pool in Pool}

    def _add(self, settings: JobEntry, before: JobStatus | None, now: datetime) -> Job:
        since = before.since if before else now
        job = Job(settings, self.agenda.add(settings.name, settings.schedule, since), before)
        self.jobs[settings.name] = job
        return job

    def _remove(self, name: str) -> Job:
        self.agenda.remove(name)
        return self.jobs.pop(name)


def _is_late(job: Job, now: datetime) -> bool:
    return bool(overdue(job.settings.schedule, job.entry.past, now))


def _row(job: Job, now: datetime) -> JobStatus:
    """Return a job's status; one whose repository was not looked at yet is shown as it was before."""
    entry, found = job.entry, job.summary
    due = entry.due if found else None
    if found is None and job.before:
        return msgspec.structs.replace(job.before, status=str(entry), next_time=None, next_tags=())
    newest = found.newest if found else None
    late = overdue(job.settings.schedule, entry.past, now).total_seconds()
    verification = newest.verification if newest else None
    return JobStatus(
        job=entry.name,
        sla="TOO OLD" if late else "OK",
        sla_overdue=late,
        status=str(entry),
        since=entry.past.since,
        revisions=found.revisions if found else 0,
        last_time=newest.timestamp if newest else None,
        last_tags=tuple(by_interval(entry.schedule, newest.tags)) if newest else (),
        last_duration=found.duration if found else None,
        next_time=due.time if due else None,
        next_tags=tuple(by_interval(entry.schedule, due.tags)) if due else (),
        failures=entry.failures,
        error=job.error,
        manual_tags=found.manual_tags if found else (),
        quarantine_reports=found.reports if found else 0,
        distrusted=found.distrusted if found else 0,
        unreadable=found.unreadable if found else 0,
        verification=str(verification) if verification else None,
        partly_verified=bool(verification and verification.out_of_time),
        consistent=newest is None or newest.consistent,
    )
