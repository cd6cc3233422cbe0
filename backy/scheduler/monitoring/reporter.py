"""Tells others what the scheduler knows: by the status file, metrics, systemd, mail and event plugins."""

import asyncio
import logging
import os
import queue
import socket
import threading
from collections.abc import Callable, Container, Coroutine, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Self

import msgspec

from backy.api import Job
from backy.errors import BackyError, ConfigError
from backy.plugins.events import Events
from backy.plugins.loading import ARGUMENTS
from backy.repository.repository import Repository
from backy.repository.revision import Clock, utc_now
from backy.scheduler.configuration.configuration import Configuration, load
from backy.scheduler.configuration.location import Notify
from backy.scheduler.monitoring import metrics, status
from backy.scheduler.monitoring.check import late, unsound
from backy.scheduler.monitoring.status import JobStatus, Status, space
from backy.scheduler.process import children
from backy.scheduler.process.children import Terms, aside, happened
from backy.terminal.plain import printable
from backy.text.phrases import counted, local_time

log = logging.getLogger(__name__)
GATHER = timedelta(seconds=1)
"""Pause after a change before it is reported, as more changes follow often."""

PLUGINS_INTERVAL = timedelta(hours=1)
"""Pause between two searches for broken plugins."""

SHOW = timedelta(minutes=10)
"""Pause between two overviews."""

LIMIT = timedelta(minutes=2)
"""Time limit of such a search, of an overview, and of a mailer."""
MOST_WAITING = 10_000
"""Number of events that wait for plugins at most; further ones are logged and lost."""

PATIENCE = timedelta(seconds=10)
"""How long the end of the scheduler waits for plugins."""


class Notifier:
    """Sends notifications to the service manager that started this process; does nothing if there is none."""

    def __init__(self, address: str | None, watchdog: timedelta | None = None) -> None:
        self._address = address
        self.watchdog = watchdog
        """Longest time between two messages `WATCHDOG=1`; None if the manager has no watchdog."""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Self:
        """Create a notifier from the variables of systemd and remove them from the environment."""
        # Children would inherit them, and could report in the name of the scheduler.
        address = environment.pop("NOTIFY_SOCKET", None)
        microseconds = environment.pop("WATCHDOG_USEC", None)
        meant = environment.pop("WATCHDOG_PID", None) in {None, str(os.getpid())}
        watched = microseconds is not None and microseconds.isdecimal() and meant
        return cls(address, timedelta(microseconds=int(microseconds)) if microseconds and watched else None)

    def tell(self, message: str) -> None:
        """Send a message of sd_notify(3), such as `READY=1`."""
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
                connection.connect(address)
                connection.send(message.encode())
        except OSError as error:
            # Backups are more important than telling of them.
            log.debug("systemd can not be told %r: %s", message, error)


@dataclass(eq=False)
class Reporter:
    """Writes the status after each change, and at least once per status interval."""

    current: Callable[[], Status]
    configuration: Callable[[], Configuration]
    interval: Callable[[], timedelta]
    backy: Sequence[str]
    """The command line of the program `backy`, without options."""
    notifier: Notifier
    broken_plugins: tuple[str, ...] = ()
    failures: dict[str, str] = field(default_factory=dict)
    """Why the last mail could not be sent, and the pages not be written, if they could not."""
    notices: dict[str, str] = field(default_factory=dict)
    """As in the status."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _write_problem: str | None = field(default=None, init=False)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def report(self) -> None:
        """Request that the status is written soon."""
        self._changed.set()

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """Return the coroutines to run concurrently until cancelled."""
        more = [self._keep_watchdog_calm(), self._notify(), self._show()]
        return [self._write_status(), self._look_for_broken_plugins(), *more]

    async def write(self) -> None:
        """Write the current status."""
        # One at a time: two would take each other's temporary file, and an old state could replace a new one.
        async with self._writing:
            self._changed.clear()
            found = self.current()
            problems = (*found.problems, *self.failures.values())
            found = msgspec.structs.replace(found, notices=self.notices, problems=problems)
            running = sum(pool.running for pool in found.pools.values())
            slots = f"{running} running, {sum(pool.queued for pool in found.pools.values())} waiting for a slot"
            self.notifier.tell(f"STATUS={counted(len(found.jobs), 'job')}, {slots}")
            # The status is complete here, as only the loop may look at jobs; encoding and writing it takes long.
            await aside(self._write, self.configuration(), found)

    async def _write_status(self) -> None:
        while True:
            if await happened(self._changed, self.interval()):
                await asyncio.sleep(GATHER.total_seconds())
            await self.write()

    def _write(self, configuration: Configuration, found: Status) -> None:
        """Write the files. Log an error once, and again only after a success or if it is another one."""
        before, self._write_problem = self._write_problem, None
        try:
            status.write(configuration.settings.status_path, msgspec.json.encode(found))
            if configuration.settings.metrics_file:
                status.write(configuration.settings.metrics_file, metrics.render(found).encode())
        except (OSError, UnicodeError) as error:
            # A full disk must not stop the backups; `backy check` notices the old file.
            self._write_problem = f"the status can not be written: {error}"
            if self._write_problem != before:
                log.error("%s", self._write_problem)  # noqa: TRY400  # the cause says all

    async def _look_for_broken_plugins(self) -> None:
        """Search for broken plugins by the command `plugins --check`, until cancelled."""
        # In a process of its own: a plugin may have been changed, or may crash the process that loads it.
        while True:
            try:
                printed = await children.output_of([*self.backy, "plugins", "--check", "--json"], limit=LIMIT)
                listed = msgspec.json.decode(printed, type=dict[str, list[dict[str, str | None]]])["plugins"]
            except (OSError, children.EndedError, msgspec.DecodeError, KeyError) as error:
                log.warning("nobody knows which plugins are broken, by 'backy plugins --check': %s", error)
            else:
                form = "{kind} '{name}' of {distribution}: {cause}"
                self.broken_plugins = tuple([form.format(**one) for one in listed if one["state"] == "failed"])
                self.report()
            await asyncio.sleep(PLUGINS_INTERVAL.total_seconds())

    async def _notify(self) -> None:
        """Send mail of what has changed, until cancelled."""
        # By what is so, and not by events: neither a mailer that fails nor a restart loses anything.
        pause = self.interval()
        while True:
            notify = self.configuration().settings.notify
            found = cases(self.current(), notify.failures) if notify else self.notices
            lines = [f"over: {text}" for key, text in self.notices.items() if key not in found]
            lines += [f"new: {text}" for key, text in found.items() if key not in self.notices]
            try:
                if notify and lines:
                    held = f"{counted(len(lines), 'change')}, held back for {pause} at most"
                    await send(notify, [*lines, held, *self.failures.values()])
                    self.report()  # or a scheduler that starts soon would tell it again
                self.notices = found
                self.failures.pop("mail", None)
            except Exception as error:  # noqa: BLE001  # no text and no mailer may end the scheduler
                self.failures["mail"] = f"mail is held back: {error}"
            pause = timedelta(hours=1) / notify.per_hour if notify and lines else self.interval()
            await asyncio.sleep(pause.total_seconds())

    async def _show(self) -> None:
        """Have the pages of all jobs written by the command `overview`, until cancelled."""
        while True:
            found = self.configuration()
            command = [*self.backy, "overview", "-c", str(found.path), "--html", str(found.settings.overview)]
            try:
                if found.settings.overview:
                    await said_by("it", command)
                self.failures.pop("overview", None)
            except (BackyError, OSError) as error:
                self.failures["overview"] = f"'backy overview' can not write all pages: {error}"
            await asyncio.sleep(SHOW.total_seconds())

    async def _keep_watchdog_calm(self) -> None:
        """Reset the watchdog until cancelled."""
        # From the loop itself, so that it stops if the loop hangs; twice as often as needed, see sd_notify(3).
        while self.notifier.watchdog:
            self.notifier.tell("WATCHDOG=1")
            await asyncio.sleep(self.notifier.watchdog.total_seconds() / 2)


def cases(status: Status, failures: int) -> dict[str, str]:
    """Return what somebody has to look at: texts, by what makes each of them another one."""
    found = {"disk": space(status.disk)} if status.disk and status.disk.low_since else {}
    for job in status.jobs:
        states = {"is not within SLA": job.sla_overdue, "fails again and again": job.failures >= failures}
        found |= {f"{job.job} {how}": f"{late(job)} {how}" for how, so in states.items() if so}
        found |= {text: text for text in [*(f"{job.job}: {one}" for one in job.tampering), *unsound(job)]}
    return found


async def send(notify: Notify, lines: Iterable[str]) -> str:
    """Give lines to the mailer, and return what that printed. Raise BackyError or OSError if it fails."""
    text, mail = "\n".join(map(printable, lines)), EmailMessage()
    mail["To"], mail["Date"], mail["Auto-Submitted"] = notify.to, utc_now(), "auto-generated"
    # What has the form of an encoded word would be decoded, and could bring another header.
    mail["Subject"] = f"backy on {socket.gethostname()}: {text[:120]}".replace("\n", "; ").replace("=?", "= ?")
    mail.set_content(text)
    return await said_by("the mailer", [str(notify.program), "-t", "-i"], bytes(mail))


async def said_by(name: str, command: Sequence[str], given: bytes | None = None) -> str:
    """Run a program, and return what it printed. Raise BackyError or OSError if it fails or takes too long."""
    # No pipe: a daemon that a mailer leaves behind would hold its end.
    with NamedTemporaryFile() as out:
        code = await children.run(command, Path(out.name), Terms(LIMIT, given))
        printed = printable(out.read(1000).decode(errors="replace").strip())
    if code:
        raise BackyError(f"{name} ended with exit code {code} and printed: {printed or 'nothing'}")
    return printed


def send_test(configuration: Path) -> tuple[Path, str]:
    """Send a test message; return the mailer, and what that printed. Raise BackyError or OSError if it fails."""
    notify = load(configuration).settings.notify
    if not notify:
        raise ConfigError(f"{configuration} has no 'notify' in 'global': nobody would be told anything")
    return notify.program, asyncio.run(send(notify, ["a test: this is how you are told of what needs somebody"]))


class Announcer:
    """Tells plugins in a thread of its own, so that no job waits for them."""

    def __init__(self, events: Callable[[], Events], clock: Clock = utc_now) -> None:
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
        overdue = [job for job in before.values() if job.sla_overdue]
        self._since = {job.job: written - timedelta(seconds=job.sla_overdue) for job in overdue}

    def changes(self, jobs: Iterable[JobStatus], now: datetime) -> Iterator[tuple[str, str, datetime, str]]:
        """Yield what has changed since the last call: hooks, names of jobs, since when, and texts."""
        for job in jobs:
            if job.sla_overdue and job.job not in self._since:
                since = self._since[job.job] = now - timedelta(seconds=job.sla_overdue)
                hook = "backy_copy_overdue" if job.copy else "backy_job_overdue"
                yield hook, job.job, since, f"{late(job)} is not within SLA"
            elif not job.sla_overdue and job.job in self._since:
                yield "backy_job_recovered", job.job, self._since.pop(job.job), f"{job.job} is within SLA again"
