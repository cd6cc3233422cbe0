"""The jobs of the scheduler, each with its configuration, its place on the agenda and the summary of its repository."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import NamedTuple

import msgspec

from backy.scheduler.configuration.configuration import Configuration, JobEntry
from backy.scheduler.jobs.agenda import Agenda, Entry, Outcome, Phase, Pool
from backy.scheduler.jobs.due import GRACE, Past, by_interval, sla, smallest_interval
from backy.scheduler.jobs.runner import Result
from backy.scheduler.jobs.summary import NOTHING_KNOWN, Audited, Summary
from backy.scheduler.monitoring.status import JobStatus, PoolStatus, verdict

_IMAGES = attrgetter("source", "disks", "storage")
"""What a running backup of a job relies upon."""


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
    failing_since: datetime | None = None
    """When the first of the runs in a row ended that were no full success."""
    put_off_since: datetime | None = None
    """Since when expiry or purge are put off by other commands."""
    full: bool = False
    """Whether the last backup failed as a disk is full."""
    occupied: int | None = None
    """Bytes that the repository took after the last run."""
    task: asyncio.Task[None] | None = None
    """The current run."""
    row: JobStatus | None = field(default=None, repr=False)
    """The last status, reused as long as nothing has changed."""

    @property
    def past(self) -> Past:
        """What is known of its revisions; the agenda learns of it only when no run goes on."""
        return self.summary.past if self.summary else self.entry.past

    @property
    def newest(self) -> str | None:
        """The id of the newest revision."""
        return self.summary.newest.id if self.summary and self.summary.newest else None

    @property
    def audited(self) -> Audited:
        """What is known of it by its journal, maybe from an earlier scheduler."""
        if self.summary:
            return self.summary.audited
        return Audited(self.before.head, self.before.tampering) if self.before else NOTHING_KNOWN


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
            if _IMAGES(settings) != _IMAGES(job.settings):
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
        failures = job.entry.failures
        job.summary = summary
        self.agenda.learn(job.settings.name, summary.past, summary.duration, now)
        if failures and not job.entry.failures:
            job.error, job.failing_since, job.full = None, None, False  # somebody has made a revision by hand
        job.row = None

    def finish(self, job: Job, result: Result, now: datetime) -> None:
        """Record how a run of a job has ended."""
        past, duration = (job.summary.past, job.summary.duration) if job.summary else (job.entry.past, None)
        self.agenda.finish(job.entry, result.outcome, past, duration, now)
        job.task = job.row = None
        job.occupied = job.occupied if result.occupied is None else result.occupied
        if result.outcome is Outcome.BUSY:
            # This says nothing of what failed before, unless the command that was in the way has made a revision.
            if not (job.entry.failures or job.unfinished):
                job.error, job.failing_since, job.full = result.error, None, False
            return
        job.error, job.full = result.error, result.full
        job.unfinished = result.outcome is Outcome.DONE and result.error is not None
        job.failing_since = (job.failing_since or now) if result.error else None
        if result.outcome is Outcome.DONE:
            job.put_off_since = (job.put_off_since or now) if result.put_off else None

    def rows(self, now: datetime) -> Iterator[JobStatus]:
        """Yield the status of every job, sorted by name."""
        # Most of ten thousand jobs are as they were: only those that time or an event has changed are made anew.
        for job in self.jobs.values():
            row = job.row
            if row is None or row.sla_overdue or row.late_from < now or row.status != str(job.entry):
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
        return next((name for name, job in self.jobs.items() if job.newest in job.past.ahead), None)

    def pools(self) -> dict[str, PoolStatus]:
        """Return the use of each pool."""
        agenda = self.agenda
        return {str(pool): PoolStatus(agenda.running(pool), agenda.queued(pool), agenda.worker_limit) for pool in Pool}

    def _add(self, settings: JobEntry, before: JobStatus | None, now: datetime) -> Job:
        # A restart gives no job more time for its first backup, nor does a clock that was ahead when it became known.
        since = min(before.since, now) if before else now
        job = Job(settings, self.agenda.add(settings.name, settings.schedule, since), before)
        if before:
            # What has failed fails until a run proves the contrary; a restart proves nothing.
            job.entry.failures, job.error, job.unfinished = before.failures, before.error, before.unfinished
            job.failing_since, job.put_off_since = before.failing_since, before.put_off_since
            job.full, job.occupied = before.full, before.occupied
            job.entry.past = Past(since, before.last_time, {})
        self.jobs[settings.name] = job
        return job

    def _remove(self, name: str) -> Job:
        self.agenda.remove(name)
        return self.jobs.pop(name)


def _row(job: Job, now: datetime) -> JobStatus:
    """Return the status of a job; until its repository was scanned, as it was before."""
    entry, found = job.entry, job.summary
    # A run that goes on is no next one.
    due = entry.due if found and entry.phase is not Phase.RUNNING else None
    # Without this a restart would show all jobs as if they had no revisions.
    if found is None and job.before:
        now_late = verdict(job.before.late_from, now)
        idle = {"running_since": None, "next_time": None, "next_tags": ()}
        return msgspec.structs.replace(job.before, status=str(entry), **idle, **now_late)
    newest, past = found.newest if found else None, job.past
    late_from = (past.newest or past.since) + sla(job.settings.schedule)
    verification = newest.verification if newest else None
    return JobStatus(
        job=entry.name,
        **verdict(late_from, now),
        late_from=late_from,
        status=str(entry),
        since=past.since,
        running_since=entry.due.time if entry.due and entry.phase is Phase.RUNNING else None,
        interval=smallest_interval(entry.schedule).total_seconds(),
        revisions=found.revisions if found else 0,
        last_time=past.newest,
        last_tags=tuple(by_interval(entry.schedule, newest.tags)) if newest else (),
        last_duration=found.duration if found else None,
        next_time=due.time if due else None,
        next_tags=tuple(by_interval(entry.schedule, due.tags)) if due else (),
        failures=entry.failures,
        error=job.error,
        unfinished=job.unfinished,
        failing_since=job.failing_since,
        put_off_since=job.put_off_since,
        manual_tags=found.manual_tags if found else (),
        quarantine_reports=found.reports if found else 0,
        distrusted=found.distrusted if found else 0,
        wrong=found.wrong if found else 0,
        unreadable=found.unreadable if found else 0,
        verification=str(verification) if verification else None,
        compared_since=newest.compared_since if newest else None,
        partly_verified=bool(verification and verification.out_of_time),
        consistency=newest.consistency if newest else None,
        unfrozen=newest is not None and newest.unfrozen,
        remarks=verification.remarks if verification else (),
        ahead=past.ahead,
        waiting=found.waiting if found else 0,
        pinned=found.pinned if found else (),
        image=newest.size if newest else None,
        changed=newest.statistics.bytes_written if newest else None,
        stored=newest.statistics.bytes_stored if newest else None,
        occupied=job.occupied,
        max_size=job.settings.max_size,
        full=job.full,
        head=job.audited.head,
        tampering=job.audited.tampering,
    )
