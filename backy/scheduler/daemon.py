"""The process of the scheduler: starts jobs that are due, reloads the configuration, and stops on request."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from time import monotonic_ns
from typing import Any, TypeVar

from backy.errors import BackyError
from backy.plugins.discovery import CORE_DISTRIBUTION
from backy.plugins.events import Events
from backy.repository.revision import Clock, utc_now
from backy.scheduler.configuration.configuration import Configuration, JobEntry, load
from backy.scheduler.console.access import Access
from backy.scheduler.jobs.agenda import Outcome, Phase, Result
from backy.scheduler.jobs.due import GRACE, ClockWatch
from backy.scheduler.jobs.ledger import Job, Ledger, Scanner
from backy.scheduler.jobs.repositories import Summary, pending
from backy.scheduler.jobs.runner import Runner
from backy.scheduler.monitoring.reporter import GATHER, Announcer, Notifier, Reporter, SlaWatch
from backy.scheduler.monitoring.status import DiskStatus, JobStatus, Status, copies, judged, left_before, look, space
from backy.scheduler.process.base_directory import held
from backy.scheduler.process.children import aside, happened
from backy.text.phrases import counted, local_time

log = logging.getLogger(__name__)
Returned = TypeVar("Returned")
LONGEST_SLEEP = timedelta(minutes=1)
"""Longest pause between two looks at the agenda: the clock may be set meanwhile."""

LOOK_AT_CLOCK = timedelta(seconds=1)
"""Pause between two looks at a clock that may be set soon."""


def serve(configuration: Path, backy: Sequence[str]) -> None:
    """Schedule the jobs of a configuration until SIGTERM, SIGINT or SIGQUIT.

    Args:
        configuration: Absolute path of the configuration; a reload reads it again.
        backy: Command line of the program `backy`, without options of a command.

    Raises:
        ConfigurationError: the configuration is wrong.
        SchedulerRunningError: another scheduler serves the base directory.
        BackyError: the base directory is missing or can not be used.
    """
    notifier = Notifier.from_environment()
    found = load(configuration)
    with held(found.settings.base_dir) as check:
        asyncio.run(Daemon(found, check, backy, notifier).run(left_before(found.settings.status_path)))


@dataclass(eq=False)
class Daemon:
    """Runs the jobs of a configuration and answers operators."""

    configuration: Configuration
    check_base: Callable[[], None]
    """Raises BackyError if the base directory is not the one that it was when the scheduler began."""
    backy: Sequence[str]
    notifier: Notifier
    clock: Clock = utc_now

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.configuration.settings.worker_limit)
        self._started = self._loaded = self.clock()
        self._error: str | None = None
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._reloading = asyncio.Lock()
        self.runner = Runner(self.backy, self._prepare)
        self._scanner = Scanner(self._learn, self.clock)
        self._watch = ClockWatch(self.clock)
        self._told_clock = False
        self._reporter = Reporter(self._watched, lambda: self.configuration, self._interval, self.backy, self.notifier)
        self._announcer = Announcer(lambda: Events.installed(self.configuration.hooks), self.clock)
        self._sla = SlaWatch({}, self._started)
        self._disk: DiskStatus | None = None
        self._copies: tuple[str, ...] = ()
        self._access = Access(self)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, left: Status | None = None) -> None:
        """Schedule until SIGTERM, SIGINT or SIGQUIT, then end all children; `left` is the status of an earlier one."""
        before = {job.job: job for job in left.jobs} if left else {}
        if left:
            self._disk, self._copies, self._reporter.notices = left.disk, left.copies, left.notices
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._keep(self._hang_up()))
        self._apply(self.configuration, before)
        self._sla = SlaWatch(before, self._started)
        try:
            await self._access.open(self.configuration)
            await self._reporter.write()  # before `ready`: who waits for that finds a status file
            async with asyncio.TaskGroup() as group:
                scanning = self._scanner.run(self.ledger.scanned, self._interval)
                parts = [self._start_what_is_due(), scanning, self._watch_disk(), *self._reporter.parts()]
                work = [group.create_task(part) for part in parts]
                self.notifier.tell("READY=1")
                log.info("scheduling %s of %s", counted(len(self.ledger.jobs), "job"), self.configuration.path)
                await self._stop.wait()
                log.info("stopping")
                self.notifier.tell("STOPPING=1")
                for task in work:
                    task.cancel()
        finally:
            # In this order: nobody can trigger jobs when the running ones are ended, and their repositories are scanned
            # before the scanner is closed.
            self._access.close()
            self._end(self.ledger.jobs.values())
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._scanner.close()
            await aside(self._announcer.close)
        log.info("stopped")

    # for operators and reports ----------------------------------------------------------------------------------------

    def status(self) -> Status:
        """Return the current status of scheduler and jobs."""
        now, ledger = self.clock(), self.ledger
        told = *self._scanner.problems(ledger.jobs), *self._announcer.problems(ledger.jobs), *ledger.crowded()
        return Status(
            version=version(CORE_DISTRIBUTION),
            pid=os.getpid(),
            started=self._started,
            written=now,
            interval=self._interval().total_seconds(),
            configuration=str(self.configuration.path),
            loaded=self._loaded,
            configuration_error=self._error,
            console=self._access.console.addresses,
            problems=(*self._access.console.problems, *told),
            plugins=self._reporter.broken_plugins,
            pools=ledger.pools(),
            jobs=tuple(ledger.rows(now)),
            disk=self._disk,
            copies=self._copies,
        )

    def trigger(self, names: Iterable[str], tags: Sequence[str] = ()) -> int:
        """Queue jobs, with these tags or those that are due; return how many of them were not running already."""
        self._wake.set()
        now = self.clock()
        return sum(self.ledger.agenda.trigger(name, now, tags) for name in names)

    async def cancel(self, name: str) -> datetime | None:
        """End the run of a job, or take it out of the queue; return when the job is due again.

        Raises:
            BackyError: there is no such run, or it is being ended already.
        """
        job, result = self.ledger.jobs[name], Result(Outcome.CANCELLED, "cancelled by an operator")
        if job.entry.phase is Phase.QUEUED:
            self._finish(job, result)
        elif task := job.task:
            self._end([job], result)
            await asyncio.wait([task])
        else:
            raise BackyError(f"there is no run of {name} to cancel")
        return job.entry.due.time if job.entry.due else None

    def pause(self, name: str, length: timedelta | None) -> datetime | None:
        """Start no run of a job for some time, or go on with it; return when the pause ends."""
        self._wake.set()
        return self.ledger.pause(name, length, self.clock())

    async def reload(self) -> str:
        """Reload the configuration and return a summary of the changes.

        Raises:
            BackyError: the configuration is wrong. The old one stays in force.
        """
        # Shielded: the reload is completed even if the client that asked for it has gone.
        return await asyncio.shield(self._keep(self._reload()))

    def _interval(self) -> timedelta:
        """Return the longest pause between two status files and between two scans."""
        # An interval of 0 would keep the loop busy.
        return max(self.configuration.settings.status_interval, GATHER)

    def _watched(self) -> Status:
        """Return the current status, and tell plugins of jobs that became overdue or keep their SLA again."""
        found = self.status()
        for hook, name, since, text in self._sla.changes(found.jobs, found.written):
            settings = self.ledger.jobs[name].settings
            where = {"place": settings.copy.to} if settings.copy and "copy" in hook else {}
            self._announcer.tell(hook, settings.directory, since=since, text=text, **where)
        return found

    async def _watch_disk(self) -> None:
        """See how full the disk is and what copies it has; tell plugins when it becomes low, until cancelled."""
        while True:
            base_dir, before = self.configuration.settings.base_dir, self._disk
            with contextlib.suppress(OSError):  # the scanner tells of it
                self._copies = await aside(copies, base_dir, frozenset(self.ledger.jobs))
                self._disk = judged(await aside(look, base_dir), before, self.clock())
                if self._disk.low_since and not (before and before.low_since):
                    text = space(self._disk)
                    log.warning("%s", text)
                    self._announcer.tell("backy_space_low", base_dir, since=self._disk.low_since, text=text)
            await asyncio.sleep(self._interval().total_seconds())

    # configuration ----------------------------------------------------------------------------------------------------

    async def _hang_up(self) -> None:
        with contextlib.suppress(BackyError):  # it is logged
            await self._reload()

    async def _reload(self) -> str:
        async with self._reloading:
            self.notifier.tell(f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns() // 1000}")
            try:
                configuration = await aside(load, self.configuration.path)
                self._check_new(configuration)
            except BackyError as error:
                self._error = str(error)
                log.error("the configuration stays as it is: %s", error)  # noqa: TRY400  # the cause says all
                raise
            else:
                self._error = None
                text = self._apply(configuration, {})
                await self._access.open(configuration)
                log.info("reloaded the configuration: %s", text)
                return text
            finally:
                # Before anybody is told that it is done: who asks then shall find the present state.
                await self._reporter.write()
                self.notifier.tell("READY=1")

    def _check_new(self, configuration: Configuration) -> None:
        """Raise BackyError if a running scheduler can not apply the configuration."""
        # The lock of the base directory, the socket and the running children belong to the old one.
        old = self.configuration.settings.base_dir
        if configuration.settings.base_dir != old:
            raise BackyError(f"global.base-dir is {old} for a scheduler that runs; restart it to change that")

    def _apply(self, configuration: Configuration, before: Mapping[str, JobStatus]) -> str:
        """Put a configuration into force and return a summary of the changes."""
        self.configuration = configuration
        self._loaded = self.clock()
        self.runner.callback = configuration.settings.backup_completed_callback
        added, ended = self.ledger.apply(configuration, before, self._loaded)
        self._scanner.add(job for job in added if not job.settings.part)
        for job in ended:
            if job.task:
                log.warning("%s: ended, as the job is gone or has another source or storage", job.settings.name)
        self._end(ended)
        self._wake.set()
        gone = counted(sum(job.settings.name not in self.ledger.jobs for job in ended), "is gone", "are gone")
        return f"{counted(len(self.ledger.jobs), 'job')}, {len(added)} of them new; {gone}"

    def _keep(self, work: Coroutine[Any, Any, Returned]) -> asyncio.Task[Returned]:
        """Start a task that is awaited before the scheduler stops."""
        # The loop itself holds tasks only weakly, so that they could vanish while they wait.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # runs -------------------------------------------------------------------------------------------------------------

    async def _start_what_is_due(self) -> None:
        """Start jobs when they are due, until cancelled."""
        while True:
            self._wake.clear()
            await self._follow_clock()
            if self._waits_for_clock():
                await happened(self._wake, LOOK_AT_CLOCK)
                continue
            now = self.clock()
            for entry in self.ledger.agenda.start(now):
                job = self.ledger.jobs[entry.name]
                job.task = self._keep(self._run(job))
            upcoming = self.ledger.agenda.next_time()
            await happened(self._wake, min(upcoming - now, LONGEST_SLEEP) if upcoming else LONGEST_SLEEP)

    async def _follow_clock(self) -> None:
        """See what is due now if somebody has set the clock."""
        if jump := self._watch.jump():
            log.warning("the clock was set %s by %s", "back" if jump < timedelta() else "forward", abs(jump))
            # Before anything is started: what is ahead of the clock counts for nothing, and what is not counts again.
            await self._scanner.look([job for job in self.ledger.jobs.values() if job.summary])
            self.ledger.set_clock(jump, self.clock())

    def _waits_for_clock(self) -> bool:
        """Tell whether the clock may be set soon: it is before a job's newest revision, and the scheduler has begun."""
        # The first question is answered at once: all jobs are looked at only in the first minutes.
        watched = self._watch.watched
        if watched >= GRACE or watched >= (patience := self.ledger.patience()):
            return False
        before = self.ledger.ahead()
        if before and not self._told_clock:
            text = f"the clock is before the newest revision; nothing is started for {patience}, as it may be set soon"
            self._doubt_clock(before, text)
            self._told_clock = True
        return before is not None

    def _doubt_clock(self, name: str, text: str) -> None:
        """Log that the clock can not be right, as a job shows, and tell plugins."""
        log.warning("%s: %s", name, text)
        directory = self.ledger.jobs[name].settings.directory
        self._announcer.tell("backy_clock_suspect", directory, since=self.clock(), text=f"{name}: {text}")

    async def _run(self, job: Job) -> None:
        """Run a job, scan its repository and record the result."""
        name, newest, tags = job.settings.name, job.newest, job.entry.due.tags if job.entry.due else ()
        log.info("%s: %s", name, job.settings.doing(tags))
        try:
            result = await self.runner.run(job.settings, tags, self.ledger.round(job, self.clock()))
            looked = bool(job.settings.part) or await self._scanner.look_again(job)
            # Do not trust the exit code alone: a job that never has a new revision would be run again and again.
            if result.outcome is Outcome.DONE and job.newest == newest and not job.settings.beside:
                cause = "there is no new revision" if looked else "its repository hangs"
                result = Result(Outcome.FAILED, f"the backup ended well, but {cause}")
        except asyncio.CancelledError as error:
            # What `_end` passes on.
            result = (*error.args, Result(Outcome.BUSY, "the backup was ended by the scheduler"))[0]
            raise
        except Exception:
            log.exception("%s: internal error", name)
            result = Result(Outcome.FAILED, "internal error; the log of the scheduler tells more")
        finally:
            self._finish(job, result)

    def _finish(self, job: Job, result: Result) -> None:
        """Record the result of a run, log it and schedule the next one."""
        name = job.settings.name
        self.ledger.finish(job, result, self.clock())
        due, failures = job.entry.due and job.entry.due.time, job.entry.failures
        upcoming = local_time(due, zone=True) if due else "never"
        if result.outcome is Outcome.FAILED:
            log.error("%s: failed, %d in a row: %s; next attempt %s", name, failures, result.error, upcoming)
        elif result.error:
            log.warning("%s: %s; next %s", name, result.error, upcoming)
        else:
            log.info("%s: done; next %s", name, upcoming)
        told = {"outcome": result.outcome.value, "error": result.error, "failures": failures, "next_time": due}
        self._announcer.tell("backy_job_finished", job.settings.directory, **told)
        if result.outcome is Outcome.DONE and not job.settings.part:
            self.trigger(self.ledger.pushed_from(job, self.clock()))
        self._wake.set()
        self._reporter.report()

    @staticmethod
    def _end(jobs: Iterable[Job], result: Result | None = None) -> None:
        """Cancel the runs of these jobs, with this result, without waiting for them."""
        for job in jobs:
            if job.task:
                # Later: a task that was made just now has to begin, or it would not come to its clean end.
                asyncio.get_running_loop().call_soon(job.task.cancel, result)
                job.task = None  # cancelled once only: a second time would cut short its clean end

    def _prepare(self, job: JobEntry) -> bytes | None:
        """Return the `config` that a job's repository has to get. Called in a thread."""
        # Before anything is written: the disk may have been unmounted since the start.
        self.check_base()
        return None if job.part else pending(job)

    def _learn(self, job: Job, summary: Summary) -> None:
        """Record the summary of a repository, unless its job has been removed."""
        if self.ledger.jobs.get(job.settings.name) is job:
            ahead = summary.past.ahead
            if ahead and ahead != job.entry.past.ahead:
                text = f"the schedule does not count {counted(len(ahead), 'revision')} ahead of the clock"
                self._doubt_clock(job.settings.name, f"{text}, the latest of which is {ahead[-1]}")
            tampering = summary.audited.tampering
            if tampering and not job.audited.tampering:
                log.error("%s: %s", job.settings.name, tampering[0])
                self._announcer.tell("backy_journal_broken", job.settings.directory, text="; ".join(tampering))
            self.ledger.learn(job, summary, self.clock())
            self._wake.set()
