"""The jobs of the scheduler, each with its configuration, its place on the agenda and the summary of its repository."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from backy.scheduler.configuration.configuration import Configuration, JobEntry
from backy.scheduler.jobs.agenda import Agenda, Entry, Outcome, Phase, Pool, Result
from backy.scheduler.jobs.due import GRACE, Past, by_interval, late_from, smallest_interval
from backy.scheduler.jobs.repositories import Audited, Summary
from backy.scheduler.monitoring.status import Holding, JobStatus, PoolStatus, Remembered, verdict

_IMAGES = ("source", "disks", "storage")
"""The keys of `config` that a running backup of a job relies upon."""


@dataclass(eq=False)
class Job:
    """A job of the configuration in force."""

    settings: JobEntry
    entry: Entry
    known: Remembered
    """Begins with what an earlier scheduler knew."""
    summary: Summary | None = None
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
        return self.summary.newest if self.summary else None

    @property
    def audited(self) -> Audited:
        """What is known of it by its journal, maybe from an earlier scheduler."""
        if self.summary:
            return self.summary.audited
        disks = {name: Audited(one.head) for name, one in self.known.disks.items()}
        return Audited(self.known.head, self.known.tampering, disks=disks)


class Ledger:
    """All jobs of the configuration in force."""

    def __init__(self, worker_limit: int) -> None:
        self.agenda = Agenda(worker_limit)
        self.jobs: dict[str, Job] = {}

    def apply(
        self, configuration: Configuration, before: Mapping[str, JobStatus], now: datetime
    ) -> tuple[list[Job], list[Job]]:
        """Apply a configuration. `before` has what to show of new jobs until their scan.

        Returns:
            The jobs that were added, and those whose runs must be ended: they were removed, or have another source or
            storage.
        """
        self.agenda.worker_limit = configuration.settings.worker_limit
        wanted = configuration.jobs
        ended = [self._remove(name) for name in self.jobs.keys() - wanted.keys()]
        added = [self._add(one, before.get(name), now) for name, one in wanted.items() if name not in self.jobs]
        for name, settings in wanted.items():
            job = self.jobs[name]
            # A backup that is running would be of the old source, or in the old storage.
            if any(getattr(settings.config, key, None) != getattr(job.settings.config, key, None) for key in _IMAGES):
                ended.append(job)
            if settings.schedule != job.settings.schedule:
                self.agenda.reschedule(name, settings.schedule, now)
            if settings != job.settings:
                job.settings, job.row = settings, None
        # Sorted once here, so that no status has to be.
        self.jobs = {name: self.jobs[name] for name in sorted(self.jobs)}
        return added, ended

    def learn(self, job: Job, summary: Summary, now: datetime) -> None:
        """Record the summary of a job's repository."""
        failures, known = job.entry.failures, job.known
        job.summary = summary
        for name in Holding.__struct_fields__:
            setattr(known, name, getattr(summary, name))
        self.agenda.learn(job.settings.name, summary.past, summary.last_duration, now)
        if failures and not job.entry.failures:
            known.error, known.failing_since, known.full = None, None, False  # somebody has made a revision by hand
        job.row = None

    def finish(self, job: Job, result: Result, now: datetime) -> None:
        """Record how a run of a job has ended."""
        known = job.known
        self.agenda.finish(job.entry, result.outcome, job.past, known.last_duration, now)
        job.task = job.row = None
        known.occupied = known.occupied if result.occupied is None else result.occupied
        if result.outcome is Outcome.BUSY:
            # This says nothing of what failed before, unless the command that was in the way has made a revision.
            if not (job.entry.failures or known.unfinished):
                known.error, known.failing_since, known.full = result.error, None, False
            return
        known.error, known.full = result.error, result.full
        known.unfinished = result.outcome is Outcome.DONE and result.error is not None
        known.failing_since = (known.failing_since or now) if result.error else None
        if result.outcome is Outcome.DONE:
            known.put_off_since = (known.put_off_since or now) if result.put_off else None

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
        name = settings.name
        known = msgspec.convert(before, Remembered, from_attributes=True) if before else Remembered(job=name)
        job = self.jobs[name] = Job(settings, self.agenda.add(name, settings.schedule, since), known)
        # What has failed fails until a run proves the contrary; a restart proves nothing.
        job.entry.failures = before.failures if before else 0
        # Without this a restart would show all jobs as if they had no revisions.
        job.entry.past = Past(since, known.last_time, {})
        return job

    def _remove(self, name: str) -> Job:
        self.agenda.remove(name)
        return self.jobs.pop(name)


def _row(job: Job, now: datetime) -> JobStatus:
    """Return the status of a job; what its repository holds is as before until that was scanned."""
    entry, past, known = job.entry, job.past, msgspec.structs.asdict(job.known)
    running = entry.due if entry.phase is Phase.RUNNING else None
    # A run that goes on is no next one.
    upcoming = None if running else entry.due
    late = late_from(entry.schedule, past)
    return JobStatus(
        **(known | {"last_tags": tuple(by_interval(entry.schedule, job.known.last_tags))}),
        **verdict(late, now),
        late_from=late,
        status=str(entry),
        since=past.since,
        running_since=running.time if running else None,
        interval=smallest_interval(entry.schedule).total_seconds(),
        next_time=upcoming.time if upcoming else None,
        next_tags=tuple(by_interval(entry.schedule, upcoming.tags)) if upcoming else (),
        failures=entry.failures,
        max_size=job.settings.max_size,
    )
