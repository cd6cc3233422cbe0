"""The jobs of the scheduler, each with its configuration, its place on the agenda and the summary of its repository.

The scanner makes the summaries in threads, so that the scheduler notices what other commands do to repositories.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from backy.repository.revision import Clock, utc_now
from backy.scheduler.configuration.configuration import Configuration, JobEntry
from backy.scheduler.configuration.hours import DAY, Hours
from backy.scheduler.jobs.agenda import Agenda, Entry, Outcome, Phase, Pool, Result
from backy.scheduler.jobs.due import GRACE, Past, by_interval, smallest_interval, tolerance
from backy.scheduler.jobs.repositories import Audited, Stamp, Summary, stamp, summarize
from backy.scheduler.monitoring.status import NO_END, Holding, JobStatus, PoolStatus, Remembered, verdict
from backy.scheduler.process.children import HangingError, aside, happened
from backy.text.phrases import length_of_time

log = logging.getLogger(__name__)
_IMAGES = ("source", "disks", "storage")
"""The keys of `config` that a running backup of a job relies upon."""
ROUND = timedelta(minutes=10)
"""Time in which all repositories are scanned once. An unchanged one costs two system calls."""

BATCH = 50
"""Number of repositories that are scanned without a pause."""

PATIENCE = timedelta(seconds=1)
"""How long others wait for a repository that takes long, as on a network file system that hangs."""

HANGS = timedelta(minutes=5)
"""Time after which a scan counts as one that hangs."""


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
        """What is known of its revisions, or of those that were pushed; the agenda learns of it when no run goes on."""
        if self.settings.part:
            return self.entry.runs
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
        ended = [self.jobs.pop(name) for name in self.jobs.keys() - wanted.keys()]
        for job in ended:
            self.agenda.remove(job.settings.name)
        added = [self._add(one, before.get(name), now) for name, one in wanted.items() if name not in self.jobs]
        for name, settings in wanted.items():
            job = self.jobs[name]
            # A backup that is running would be of the old source, or in the old storage.
            if any(getattr(settings.config, key, None) != getattr(job.settings.config, key, None) for key in _IMAGES):
                ended.append(job)
            job.entry.sla = settings.beside.sla if settings.beside else None
            if (settings.schedule, settings.hours) != (job.settings.schedule, job.settings.hours):
                self.agenda.reschedule(name, settings.schedule, now, settings.hours)
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
        if job.settings.beside and job.entry.due and result.outcome is Outcome.DONE:
            job.entry.copied = known.copied = min(known.begun or job.entry.due.time, job.entry.due.time)
        if result.outcome is not Outcome.BUSY:
            known.begun = None
        if job.settings.part:
            known.last_time = known.copied
        self.agenda.finish(job.entry, result.outcome, job.past, known.last_duration, now)
        job.task = job.row = None
        if result.occupied is not None:
            known.occupied, known.shared = result.occupied, result.shared
        if result.outcome in {Outcome.BUSY, Outcome.CANCELLED}:
            # This says nothing of what failed before, unless the command that was in the way has made a revision.
            if not (job.entry.failures or known.unfinished):
                known.error, known.failing_since, known.full = result.error, None, False
            return
        known.error, known.full = result.error, result.full
        known.unfinished = result.outcome is Outcome.DONE and result.error is not None
        known.failing_since = (known.failing_since or now) if result.error else None
        if result.outcome is Outcome.DONE:
            known.put_off_since = (known.put_off_since or now) if result.put_off else None

    @staticmethod
    def round(job: Job, now: datetime) -> list[str]:
        """Return the options by which a scrub goes on with what it has begun, up to the end of its hours, or none."""
        hours = job.settings.hours
        if job.settings.verb != "scrub":
            return []
        job.known.begun = job.known.begun or now
        end = hours.closes(now).timestamp() if hours and hours.length < DAY else 0
        return ["--round", job.known.begun.isoformat(), str(end)]

    def set_clock(self, jump: timedelta, now: datetime) -> None:
        """Place all jobs anew after the clock was set forward by `jump`, or back if that is negative."""
        for job in self.jobs.values():
            # what was done while the clock was ahead shall not count until its time has come
            if job.entry.copied and job.entry.copied > now:
                job.entry.copied, job.row = now, None
        self.agenda.set_clock(jump, now)

    def pause(self, name: str, length: timedelta | None, now: datetime) -> datetime | None:
        """Start no run of a job for some time, or go on with it; return when the pause ends."""
        job = self.jobs[name]
        # A pause that would end after all calendars ends with them.
        until = now + min(length, NO_END - now) if length else None
        job.known.paused, job.row = until, None
        self.agenda.pause(name, until, now)
        return until

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
        return {str(pool): PoolStatus(agenda.running(pool), agenda.queued(pool), agenda.slots(pool)) for pool in Pool}

    def _add(self, settings: JobEntry, before: JobStatus | None, now: datetime) -> Job:
        # A restart gives no job more time for its first backup, nor does a clock that was ahead when it became known.
        since = min(before.since, now) if before else now
        name = settings.name
        known = msgspec.convert(before, Remembered, from_attributes=True) if before else Remembered(job=name)
        job = self.jobs[name] = Job(settings, self.agenda.add(name, settings.schedule, since, settings.hours), known)
        # What has failed fails until a run proves the contrary; a restart proves nothing.
        job.entry.failures = before.failures if before else 0
        job.entry.paused = known.paused
        if settings.beside:
            job.entry.pool = Pool.COPY if settings.copy else Pool(settings.part)
            # nobody knows when all was read last: that counts from when the job is known
            job.entry.copied, job.entry.sla = known.copied or (None if settings.copy else since), settings.beside.sla
        # Without this a restart would show all jobs as if they had no revisions.
        job.entry.past = job.past if settings.part else Past(since, known.last_time, {})
        if settings.part:
            self.agenda.learn(name, job.past, None, now)
        return job

    def scanned(self) -> list[Job]:
        """Return the jobs whose repositories are scanned: all but those that push what another job makes."""
        return [job for job in self.jobs.values() if not job.settings.part]

    def pushed_from(self, job: Job, now: datetime) -> list[str]:
        """Return the names of the copies of a job that are pushed, if they may begin now."""
        pushed = [one for one in self.jobs.values() if one.settings.verb == "push" and one.entry.opens(now) == now]
        return [one.settings.name for one in pushed if one.settings.directory == job.settings.directory]

    def crowded(self) -> Iterator[str]:
        """Yield what is said of hours in which the backups of a day do not fit."""
        taken: dict[tuple[Hours, Pool], float] = defaultdict(float)
        for job in self.jobs.values():
            if (hours := job.settings.hours) and not job.settings.beside:
                interval = smallest_interval(job.entry.schedule)
                runs = DAY / interval if interval > hours.length else hours.length / interval
                taken[hours, job.entry.pool] += (job.known.last_duration or 0) * runs / self.agenda.worker_limit
        for (hours, pool), seconds in taken.items():
            if seconds > hours.length.total_seconds():
                yield f"the {pool} backups of a day take {length_of_time(seconds)}, which does not fit into {hours}"


def _row(job: Job, now: datetime) -> JobStatus:
    """Return the status of a job; what its repository holds is as before until that was scanned."""
    entry, past, known = job.entry, job.past, msgspec.structs.asdict(job.known)
    running = entry.due if entry.phase is Phase.RUNNING else None
    # A run that goes on is no next one, and there is none while nobody ends a pause.
    upcoming = None if running or (entry.due and entry.due.time >= NO_END) else entry.due
    late = entry.late(past)
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
        verb=job.settings.verb,
        copy=job.settings.copy.to if job.settings.copy else None,
    )


def look(known: Stamp | None, directory: Path, *about: Any) -> Summary | None:  # noqa: ANN401  # as `summarize` takes it
    """Return the summary of a repository, or None if it has the stamp `known` still."""
    return None if stamp(directory) == known else summarize(directory, *about)


class Scanner:
    """Keeps the summaries of repositories up to date."""

    def __init__(self, learn: Callable[[Job, Summary], None], clock: Clock = utc_now) -> None:
        self._learn = learn
        self._clock = clock
        self._going: dict[str, asyncio.Task[None]] = {}
        """The scans that go on, by the name of the job. There is one of each, however long it takes."""
        self._new: deque[Job] = deque()
        self._there_are_new = asyncio.Event()
        self._problems: dict[str, str] = {}

    def add(self, jobs: Iterable[Job]) -> None:
        """Scan the repositories of new jobs before all others."""
        # A job does not run before its first scan.
        self._new.extend(jobs)
        self._there_are_new.set()

    def problems(self, names: Container[str]) -> Iterator[str]:
        """Yield why repositories of jobs with these names can not be scanned."""
        return (text for name, text in self._problems.items() if name in names)

    async def run(self, jobs: Callable[[], Sequence[Job]], longest: Callable[[], timedelta]) -> None:
        """Scan all repositories again and again until cancelled.

        Args:
            jobs: Returns the current jobs.
            longest: Returns the longest pause between two batches.
        """
        left: deque[Job] = deque()
        while True:
            if not self._new:
                # A new round begins with the jobs of its time; pauses spread it over `ROUND`.
                left = left or deque(jobs())
                await happened(self._there_are_new, min(longest(), ROUND * BATCH / max(len(left), 1)))
                self._there_are_new.clear()
            queue = self._new or left
            await self.look([queue.popleft() for _ in range(min(BATCH, len(queue)))])

    async def look(self, jobs: Sequence[Job]) -> None:
        """Scan the repositories of these jobs now; leave behind one that takes long, which is scanned all the same."""
        for job in jobs:
            if job.settings.name not in self._going:
                await asyncio.wait([self._begun(job, again=False)], timeout=PATIENCE.total_seconds())

    async def look_again(self, job: Job) -> bool:
        """Scan a repository also if it seems unchanged, and wait for it; return false if it hangs."""
        # One that began before may not have seen everything, and another one may begin when it ends.
        while going := self._going.get(job.settings.name):
            if (await asyncio.wait([going], timeout=HANGS.total_seconds()))[1]:
                return False
        return not (await asyncio.wait([self._begun(job, again=True)], timeout=HANGS.total_seconds()))[1]

    def close(self) -> None:
        """Wait for no scan any more."""
        for task in self._going.values():
            task.cancel()

    def _begun(self, job: Job, *, again: bool) -> asyncio.Task[None]:
        """Begin to scan a repository."""
        # What the thread needs is taken from the job here: only the loop may touch it.
        directory, past, now = job.settings.directory, job.entry.past, self._clock()
        allowed = tolerance(job.entry.schedule)
        # Time passes and the clock is set: what is ahead of it changes, even if the repository does not.
        known = job.summary.stamp if job.summary and not again and not past.depends_on(now + allowed) else None
        scan = asyncio.ensure_future(aside(look, known, directory, past.since, now, allowed, job.audited))
        task = self._going[job.settings.name] = asyncio.get_running_loop().create_task(self._scan(job, scan))
        task.add_done_callback(lambda _: self._going.pop(job.settings.name))
        return task

    async def _scan(self, job: Job, scan: asyncio.Future[Summary | None]) -> None:
        name = job.settings.name
        if (await asyncio.wait([scan], timeout=HANGS.total_seconds()))[1]:
            self._note(name, HangingError(HANGS))
        try:
            found = await scan
        except Exception as error:  # noqa: BLE001  # a defect of one must not keep the others from being scanned
            self._note(name, error)
            return
        self._problems.pop(name, None)
        if found is not None:
            self._learn(job, found)

    def _note(self, name: str, error: Exception) -> None:
        text = f"{name}: the repository can not be looked at: {error or type(error).__name__}"
        # Once, and not in every round as long as a disk is missing.
        if self._problems.get(name) != text:
            log.error("%s", text)
        self._problems[name] = text
