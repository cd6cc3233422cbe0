"""The jobs of the scheduler, each with its configuration, its place on the agenda and the summary of its repository."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from backy.retention.schedule import GRACE, by_interval, overdue, smallest_interval
from backy.scheduler.configuration.configuration import Configuration, JobEntry
from backy.scheduler.jobs.agenda import Agenda, Entry, Phase, Pool
from backy.scheduler.jobs.summary import Summary
from backy.scheduler.monitoring.status import JobStatus, PoolStatus


@dataclass(eq=False)
class Job:
    """A job of the configuration in force."""

    settings: JobEntry
    entry: Entry
    before: JobStatus | None
    """Status of the job from an earlier scheduler, shown until the first scan of its repository."""
    summary: Summary | None = None
    error: str | None = None
    """Why the last run, or what follows a backup, failed."""
    unfinished: bool = False
    """Whether the last backup is done, but something that follows it failed."""
    task: asyncio.Task[None] | None = None
    """The current run."""
    row: JobStatus | None = field(default=None, repr=False)
    """The last status, reused as long as nothing has changed."""

    @property
    def newest(self) -> str | None:
        """The id of the newest revision."""
        return self.summary.newest.id if self.summary and self.summary.newest else None


class Changes(NamedTuple):
    """What a new configuration changes."""

    added: list[Job]
    ended: list[Job]
    """Jobs that were removed, or have another source or storage: their runs must be ended."""


class Ledger:
    """All jobs of the configuration in force."""

    def __init__(self, worker_limit: int) -> None:
        self.agenda = Agenda(worker_limit)
        self.jobs: dict[str, Job] = {}

    def apply(self, configuration: Configuration, before: Mapping[str, JobStatus], now: datetime) -> Changes:
        """Apply a configuration and return the changes. `before` has what to show of new jobs until their scan."""
        self.agenda.worker_limit = configuration.settings.worker_limit
        wanted = configuration.jobs
        ended = [self._remove(name) for name in self.jobs.keys() - wanted.keys()]
        added = [
            self._add(settings, before.get(name), now) for name, settings in wanted.items() if name not in self.jobs
        ]
        for name, settings in wanted.items():
            job = self.jobs[name]
            # A backup that is running would be of the old source, or in the old storage.
            if (settings.source, settings.storage) != (job.settings.source, job.settings.storage):
                ended.append(job)
            if settings.schedule != job.settings.schedule:
                self.agenda.reschedule(name, settings.schedule, now)
            if settings != job.settings:
                job.settings, job.row = settings, None
        # Sorted once here, so that no status has to be.
        self.jobs = {name: self.jobs[name] for name in sorted(self.jobs)}
        return Changes(added, ended)

    def learn(self, job: Job, summary: Summary, now: datetime) -> None:
        """Record the summary of a job's repository."""
        job.summary = summary
        self.agenda.learn(job.settings.name, summary.past, summary.duration, now)
        job.row = None

    def rows(self, now: datetime) -> Iterator[JobStatus]:
        """Yield the status of every job, sorted by name."""
        # Most of ten thousand jobs are as they were: only those that time or an event has changed are made anew.
        for job in self.jobs.values():
            row, late = job.row, overdue(job.settings.schedule, job.entry.past, now)
            if row is None or row.sla_overdue or late or row.status != str(job.entry):
                job.row = row = _row(job, now)
            yield row

    def patience(self) -> timedelta:
        """Return how long a scheduler that starts waits for the clock to be set."""
        # Less than the time that a run may be late by; a server gets its time from the network within seconds.
        shortest = (smallest_interval(job.settings.schedule) for job in self.jobs.values())
        return min(GRACE, min(shortest, default=timedelta()) / 2)

    def ahead(self) -> str | None:
        """Return the name of a job whose newest revision is ahead of the clock; None without one."""
        # The newest only: one that was made while the clock was wrong shall not delay each start until its time comes.
        return next((name for name, job in self.jobs.items() if job.newest in job.entry.past.ahead), None)

    def pools(self) -> dict[str, PoolStatus]:
        """Return the use of each pool."""
        agenda = self.agenda
        return {str(pool): PoolStatus(agenda.running(pool), agenda.queued(pool), agenda.worker_limit) for pool in Pool}

    def _add(self, settings: JobEntry, before: JobStatus | None, now: datetime) -> Job:
        # A restart gives no job more time for its first backup, nor does a clock that was ahead when it became known.
        since = min(before.since, now) if before else now
        job = Job(settings, self.agenda.add(settings.name, settings.schedule, since), before)
        self.jobs[settings.name] = job
        return job

    def _remove(self, name: str) -> Job:
        self.agenda.remove(name)
        return self.jobs.pop(name)


def _row(job: Job, now: datetime) -> JobStatus:
    """Return the status of a job; until its repository was scanned, as it was before."""
    entry, found = job.entry, job.summary
    due = entry.due if found else None
    # Without this a restart would show all jobs as if they had no revisions.
    if found is None and job.before:
        return msgspec.structs.replace(job.before, status=str(entry), running_since=None, next_time=None, next_tags=())
    newest = found.newest if found else None
    late = overdue(job.settings.schedule, entry.past, now).total_seconds()
    verification = newest.verification if newest else None
    return JobStatus(
        job=entry.name,
        sla="TOO OLD" if late else "OK",
        sla_overdue=late,
        status=str(entry),
        since=entry.past.since,
        running_since=entry.due.time if entry.due and entry.phase is Phase.RUNNING else None,
        interval=min(tag.interval for tag in entry.schedule.values()).total_seconds(),
        revisions=found.revisions if found else 0,
        last_time=entry.past.newest,
        last_tags=tuple(by_interval(entry.schedule, newest.tags)) if newest else (),
        last_duration=found.duration if found else None,
        next_time=due.time if due else None,
        next_tags=tuple(by_interval(entry.schedule, due.tags)) if due else (),
        failures=entry.failures,
        error=job.error,
        unfinished=job.unfinished,
        manual_tags=found.manual_tags if found else (),
        quarantine_reports=found.reports if found else 0,
        distrusted=found.distrusted if found else 0,
        unreadable=found.unreadable if found else 0,
        verification=str(verification) if verification else None,
        partly_verified=bool(verification and verification.out_of_time),
        consistency=newest.consistency if newest else None,
        unfrozen=newest is not None and newest.record.unfrozen,
        remarks=verification.remarks if verification else (),
        ahead=entry.past.ahead,
        waiting=found.waiting if found else 0,
    )
