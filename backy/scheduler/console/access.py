"""Access to a running scheduler: the console and the socket of `backy client`, and the commands of both.

Each command returns a text for people and data for programs. The socket is in the base directory;
`backy.scheduler.process.base_directory` is its other end.
"""

import asyncio
import logging
import os
import socket
import textwrap
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from backy.api import ConsoleCommand
from backy.config import parse_duration
from backy.errors import BackyError, PluginError, raising
from backy.plugins.events import Events, Sections
from backy.plugins.hosting import Host
from backy.retention.tags import check_tags
from backy.scheduler.configuration.configuration import Configuration, JobEntry
from backy.scheduler.console.jobtable import job_table, selected
from backy.scheduler.console.telnet import Console
from backy.scheduler.jobs.runner import LOGFILE, Runner, tail
from backy.scheduler.monitoring.status import NO_END, Status
from backy.scheduler.process.base_directory import SOCKET, Question, Reply, short
from backy.scheduler.process.children import HangingError, aside
from backy.text.phrases import alternatives, counted, did_you_mean, local_time, size

log = logging.getLogger(__name__)
_HOOK = "backy_console_commands"
PLUGIN_LIMIT = timedelta(seconds=30)
"""How long a plugin's command may take."""

LONGEST_NOTE = 100
"""Characters of a command in the log."""

NOTE_INTERVAL = timedelta(minutes=1)
"""Time between two lines of the log on refused commands."""

LONGEST_QUESTION = 64 * 1024
"""Longest line of a client, in bytes."""

PATIENCE = timedelta(seconds=30)
"""Time limit for receiving a question, and for sending an answer."""


class Scheduler(Protocol):
    """What commands need of a scheduler."""

    configuration: Configuration
    runner: Runner

    def status(self) -> Status:
        """Return the current status of scheduler and jobs."""

    def trigger(self, names: Iterable[str], tags: Sequence[str] = ()) -> int:
        """Queue jobs, with these tags or those that are due; return how many of them were not running already."""

    async def cancel(self, name: str) -> datetime | None:
        """End the run of a job; return when it is due again. Raise BackyError if there is no run."""

    def pause(self, name: str, length: timedelta | None) -> datetime | None:
        """Start no run of a job for some time, or go on with it; return when the pause ends."""

    async def reload(self) -> str:
        """Reload the configuration and return a summary. Raise BackyError if it is wrong."""


class Command(NamedTuple):
    """A command of the console."""

    run: Callable[[Scheduler, Sequence[str]], Awaitable[Reply]]
    help: str
    arguments: str = ""
    """Names of the arguments; those in brackets are optional."""
    changes: bool = False
    """Whether the command changes anything. Such commands can be switched off for the console."""

    def takes(self, arguments: Sequence[str]) -> bool:
        """Return whether the command takes these arguments, by their number."""
        # An option counts only if it is given.
        names = [name for name in self.arguments.split() if not name.startswith("[--") or name[1:-1] in arguments]
        # A plugin's command takes any number of arguments, and says itself which.
        most = float("inf") if self.arguments.endswith("...") else len(names)
        return sum(not name.startswith("[") for name in names) <= len(arguments) <= most


async def _jobs(scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
    jobs, pattern = scheduler.status().jobs, [word for word in arguments if word != "--failed"]

    def answer() -> Reply:
        found = selected(jobs, *pattern, failed="--failed" in arguments)
        return Reply(ok=True, text=job_table(found), data={"jobs": msgspec.to_builtins(found)})

    # A table of ten thousand jobs takes too long for the loop.
    return await asyncio.to_thread(answer)


async def _status(scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
    from backy.terminal.table import table

    status = scheduler.status()
    counts = Counter(job.status for job in status.jobs)
    data = msgspec.to_builtins(status) | {"jobs": dict(counts)}  # `jobs` has the details
    shown = table(sorted(counts), {"Status": str, "#": lambda name: str(counts[name])}, ["#"])
    return Reply(ok=True, text=shown, data=data)


def _known(scheduler: Scheduler, name: str) -> JobEntry:
    """Return the job of this name; raises BackyError if there is none."""
    jobs = scheduler.configuration.jobs
    if name not in jobs:
        # A list of all jobs may be ten thousand names long.
        raise BackyError(f"Unknown job {name}; {did_you_mean(name, jobs)}'jobs' lists all")
    return jobs[name]


async def _run(scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
    job = _known(scheduler, arguments[0])
    tags = sorted({tag.strip() for text in arguments[1:] for tag in text.split(",")})
    if tags and job.beside:
        raise BackyError(f"{job.name} makes no revisions of its own, and takes no tags")
    check_tags(job.config, tags)
    triggered = scheduler.trigger([job.name], tags)
    text = f"Triggered immediate run for {job.name}" if triggered else f"{job.name} runs already"
    # The run that goes on has other tags: what was asked for does not happen.
    return Reply(ok=bool(triggered or not tags), text=text, data={"triggered": triggered})


async def _run_all(scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
    triggered = scheduler.trigger(scheduler.configuration.jobs)
    jobs = counted(triggered, "job")
    return Reply(ok=True, text=f"Triggered immediate run for {jobs}", data={"triggered": triggered})


async def _cancel(scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
    due = await scheduler.cancel(name := _known(scheduler, arguments[0]).name)
    return Reply(ok=True, text=f"{name} is cancelled and waits until {_end(name, due)}", data={"next_time": due})


async def _pause(scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
    name, *length = arguments
    try:
        # 'JOB --for 3h' reads better, and 'JOB 3h' is as clear.
        given = parse_duration(length[-1]) if length else timedelta.max
    except ValueError as error:
        raise BackyError(str(error)) from None
    until = scheduler.pause(_known(scheduler, name).name, given)
    return Reply(ok=True, text=f"{name} is paused until {_end(name, until)}", data={"paused": until})


def _end(name: str, until: datetime | None) -> str:
    return f"'resume {name}'" if until == NO_END else local_time(until, zone=True)


async def _resume(scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
    scheduler.pause(name := _known(scheduler, arguments[0]).name, None)
    return Reply(ok=True, text=f"{name} goes on", data={"paused": None})


async def _log(scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
    logfile = _known(scheduler, arguments[0]).directory / LOGFILE
    with raising(BackyError, f"{logfile} can not be read"):
        lines = (await aside(tail, logfile, 2**14, limit=PATIENCE))[-20:]
    return Reply(ok=True, text="\n".join(lines), data={"lines": lines})


async def _progress(scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
    jobs = [job for job in scheduler.status().jobs if job.running_since]
    running = [{"job": job.job, "since": job.running_since, **scheduler.runner.doing.get(job.job, {})} for job in jobs]
    return Reply(ok=True, text="\n".join(map(_run_of, running)) or "no job runs", data={"jobs": running})


def _run_of(one: Mapping[str, Any]) -> str:
    far = f": {one['step']}, {size(one['done'])} of {size(one['total'])}" if "step" in one else ""
    return f"{one['job']}: {one.get('command', 'begins')}, since {local_time(one['since'], zone=True)}{far}"


async def _reload(scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
    return Reply(ok=True, text=f"Reloaded: {await scheduler.reload()}")


COMMANDS: Mapping[str, Command] = {
    "jobs": Command(_jobs, "List the jobs, those that fail, or those whose name matches REGEX.", "[--failed] [REGEX]"),
    "status": Command(_status, "Count the jobs by state."),
    "log": Command(_log, "Show the last lines of a job's log.", "JOB"),
    "progress": Command(_progress, "Show what runs, since when, and how far it is."),
    "run": Command(_run, "Run a job as soon as there is a slot, with TAGS or those due.", "JOB [TAGS]", changes=True),
    "runall": Command(_run_all, "Run all jobs as soon as there are slots.", changes=True),
    "cancel": Command(_cancel, "End the run of a job; the next one comes by its schedule.", "JOB", changes=True),
    "pause": Command(_pause, "Run a job only by 'run', for TIME or till 'resume'.", "JOB [--for] [TIME]", changes=True),
    "resume": Command(_resume, "Let a paused job run again when it is due.", "JOB", changes=True),
    "reload": Command(_reload, "Read the configuration again.", changes=True),
}


class Access:
    """Opens console and socket, and executes what operators ask for."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._commands: Mapping[str, Command] = COMMANDS
        self._slots = asyncio.Semaphore(4)
        """Each runs a command of a plugin."""
        self._server: asyncio.Server | None = None
        self._may_change = True
        self._refused = 0
        """Number of commands that were refused since the log told so."""
        self._refused_noted: float | None = None
        """When the log told so, by the time of the loop."""
        self._listens: tuple[tuple[str, ...], int] | None = None
        self.console = Console(self._answer_console)

    async def open(self, configuration: Configuration) -> None:
        """Open the socket and the console, and load the plugins' commands. Call it again after each reload.

        Only a console whose addresses have changed is opened again, so that a reload disconnects nobody.
        """
        settings = configuration.settings
        # Loading plugins takes long, and the loop has a watchdog to feed.
        offered = await aside(console_commands, configuration.hooks)
        added = {name: self._added(command) for name, command in offered.items()}
        for name in added.keys() & COMMANDS.keys():
            log.warning("the console has a command '%s' of its own; that of a plugin is left out", name)
        # Later entries win: no plugin can replace a command of backy.
        self._commands = {**added, **COMMANDS, "help": Command(self._help, "List the commands.")}
        if self._server is None:
            bound = _bound(settings.base_dir)
            self._server = await asyncio.start_unix_server(self._talk, sock=bound, limit=LONGEST_QUESTION)
        self._may_change = not settings.telnet_read_only
        wanted = configuration.telnet_addresses, settings.telnet_port
        if self._listens != wanted:
            self._listens = wanted
            await self.console.listen(*wanted)

    def close(self) -> None:
        """Close console and socket."""
        self.console.close()
        if self._server:
            self._server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one question of a client of the socket."""
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                question = await reader.readline()
            writer.write(msgspec.json.encode(await self._reply(question)) + b"\n")
            async with asyncio.timeout(PATIENCE.total_seconds()):
                await writer.drain()
        except (TimeoutError, ValueError, OSError) as error:
            log.debug("a client has ended: %r", error)
        finally:
            writer.close()

    async def _reply(self, question: bytes) -> Reply:
        """Execute the command of a client of the socket."""
        try:
            words = msgspec.json.decode(question, type=Question).command
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Reply(ok=False, text=f"this is no question: {error}")
        # Only the owner of the scheduler can connect there, and may do everything.
        return await self._execute(words, may_change=True)

    async def _answer_console(self, words: Sequence[str]) -> Reply:
        """Execute a command that came through the console, and log it if it changes anything."""
        if any(command.changes for name, command in self._commands.items() if name == words[0]):
            self._note(textwrap.shorten(" ".join(words), LONGEST_NOTE, placeholder=" ..."))
        return await self._execute(words, may_change=self._may_change)

    async def _execute(self, words: Sequence[str], *, may_change: bool) -> Reply:
        """Execute the command that `words` name, with its arguments; the reply tells why it fails."""
        name, *arguments = words or [""]
        command = self._commands.get(name)
        if command is None:
            text = f"no such command '{name}'; {alternatives(name, self._commands)}"
        elif not command.takes(arguments):
            text = f"write: {name} {command.arguments}".rstrip()
        elif command.changes and not may_change:
            text = f"'{name}' is switched off here, as it changes something; 'backy client {name}' does it"
        else:
            try:
                # Shielded: a command that changes something is not to be interrupted because its client has gone.
                return await asyncio.shield(asyncio.ensure_future(command.run(self._scheduler, arguments)))
            except BackyError as error:
                text = str(error)
        return Reply(ok=False, text=text)

    def _note(self, text: str) -> None:
        """Log a command that changes something, or would; of the refused ones, one a minute."""
        if self._may_change:
            log.info("console: %s", text)
            return
        # Everybody who can connect may send them, as many as there is space for in the log.
        now = asyncio.get_running_loop().time()
        self._refused += 1
        if self._refused_noted is None or now - self._refused_noted >= NOTE_INTERVAL.total_seconds():
            log.info("console: refused: %s (%s since the last such line)", text, counted(self._refused, "command"))
            self._refused, self._refused_noted = 0, now

    async def _help(self, scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
        usages = {f"{name} {command.arguments}".rstrip(): command.help for name, command in self._commands.items()}
        width = max(map(len, usages))
        lines = [f"{usage:{width}}  {text}" for usage, text in usages.items()]
        return Reply(ok=True, text="\n".join(lines), data=usages)

    def _added(self, command: ConsoleCommand) -> Command:
        """Wrap the command of a plugin: it runs in a thread and is given up after `PLUGIN_LIMIT`."""

        async def run(scheduler: Scheduler, arguments: Sequence[str]) -> Reply:
            try:
                async with self._slots:
                    text = await aside(command.run, list(arguments), limit=PLUGIN_LIMIT)
            except HangingError:
                raise BackyError(f"'{command.name}' takes too long") from None
            return Reply(ok=True, text=text, data=text)

        return Command(run, command.help, "[ARGUMENT]...", changes=command.changes)


def console_commands(sections: Sections) -> dict[str, ConsoleCommand]:
    """Return the commands of all plugins by name; the first plugin wins a name that two claim."""
    commands: dict[str, ConsoleCommand] = {}
    with Events.installed(sections) as events:
        for host in events.having(_HOOK):
            answer = host.ask(_HOOK)
            if answer.failure is not None:
                log.warning("hook '%s' adds no commands: %s", host.plugin.name, answer.failure)
            for name, text, changes in answer.returned or ():
                commands.setdefault(name, ConsoleCommand(name, text, partial(_run_hosted, host, name), changes))
    return commands


def _run_hosted(host: Host, command: str, words: Sequence[str]) -> str:
    """Run a command of a plugin."""
    # A process for each call: a command that never ends must not stand in the way of the next one.
    with closing(Host(host.plugin, host.limit)) as own:
        answer = own.ask(_HOOK, words=[command, *words])
    if answer.refused:
        raise BackyError(answer.failure)
    if answer.failure is not None:
        raise PluginError(f"{host.plugin} failed: {answer.failure}")
    return str(answer.returned)


def _bound(directory: Path) -> socket.socket:
    """Create the socket, replacing an existing one."""
    opened = socket.socket(socket.AF_UNIX)
    os.fchmod(opened.fileno(), 0o600)  # the name gets these permissions, so that nobody else can ever connect
    with short(directory) as folder:
        # An existing one is a leftover: this scheduler holds the lock of the directory.
        Path(folder, SOCKET).unlink(missing_ok=True)
        opened.bind(f"{folder}/{SOCKET}")
    return opened
