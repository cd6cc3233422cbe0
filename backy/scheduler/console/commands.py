"""The commands of the console and of `backy client`. Each returns a text for people and data for programs."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from backy.errors import BackyError
from backy.scheduler.console.jobtable import job_table, selected
from backy.scheduler.monitoring.status import Status
from backy.text.phrases import alternatives, counted, did_you_mean


class Scheduler(Protocol):
    """What commands need of a scheduler."""

    def status(self) -> Status:
        """Return the current status of scheduler and jobs."""

    def trigger(self, names: Iterable[str]) -> int:
        """Queue jobs and return how many of them were not running already."""

    async def reload(self) -> str:
        """Reload the configuration and return a summary. Raise BackyError if it is wrong."""


class Answer(NamedTuple):
    """The answer to a command."""

    text: str
    data: Any = None
    """Converted to JSON."""


@dataclass(frozen=True)
class Command:
    """A command of the console."""

    run: Callable[[Scheduler, Sequence[str]], Awaitable[Answer]]
    help: str
    arguments: str = ""
    """Names of the arguments; those in brackets are optional."""
    changes: bool = False
    """Whether the command changes anything. Such commands can be switched off for the console."""

    def takes(self, count: int) -> bool:
        """Return whether the command takes `count` arguments."""
        names = self.arguments.split()
        # A plugin's command takes any number of arguments, and says itself which.
        most = float("inf") if self.arguments.endswith("...") else len(names)
        return sum(not name.startswith("[") for name in names) <= count <= most


async def execute(
    commands: Mapping[str, Command], scheduler: Scheduler, words: Sequence[str], *, may_change: bool
) -> Answer:
    """Execute the command that `words` name, with its arguments.

    Raises:
        BackyError: the command is unknown, not allowed here, or failed.
    """
    name, *arguments = words or [""]
    command = commands.get(name)
    if command is None:
        raise BackyError(f"no such command '{name}'; {alternatives(name, commands)}")
    if not command.takes(len(arguments)):
        raise BackyError(f"write: {name} {command.arguments}".rstrip())
    if command.changes and not may_change:
        raise BackyError(f"'{name}' is switched off here, as it changes something; 'backy client {name}' does it")
    return await command.run(scheduler, arguments)


async def _jobs(scheduler: Scheduler, arguments: Sequence[str]) -> Answer:
    jobs = scheduler.status().jobs

    def answer() -> Answer:
        found = selected(jobs, *arguments)
        return Answer(job_table(found), msgspec.to_builtins(found))

    # A table of ten thousand jobs takes too long for the loop.
    return await asyncio.to_thread(answer)


async def _status(scheduler: Scheduler, arguments: Sequence[str]) -> Answer:
    from backy.terminal.table import table

    status = scheduler.status()
    counts = Counter(job.status for job in status.jobs)
    rows = [[name, str(count)] for name, count in sorted(counts.items())]
    data = msgspec.to_builtins(status)
    data["jobs"] = dict(counts)  # `jobs` has the details
    return Answer(table(["Status", "#"], rows, ["#"], round_corners=False), data)


async def _run(scheduler: Scheduler, arguments: Sequence[str]) -> Answer:
    (name,) = arguments
    names = [job.job for job in scheduler.status().jobs]
    if name not in names:
        # A list of all jobs may be ten thousand names long.
        raise BackyError(f"Unknown job {name}; {did_you_mean(name, names)}'jobs' lists all")
    triggered = scheduler.trigger([name])
    text = f"Triggered immediate run for {name}" if triggered else f"{name} runs already"
    return Answer(text, {"triggered": triggered})


async def _run_all(scheduler: Scheduler, arguments: Sequence[str]) -> Answer:
    triggered = scheduler.trigger([job.job for job in scheduler.status().jobs])
    return Answer(f"Triggered immediate run for {counted(triggered, 'job')}", {"triggered": triggered})


async def _reload(scheduler: Scheduler, arguments: Sequence[str]) -> Answer:
    return Answer(f"Reloaded: {await scheduler.reload()}")


COMMANDS: Mapping[str, Command] = {
    "jobs": Command(_jobs, "List the jobs, or those whose name has a match of a regular expression.", "[REGEX]"),
    "status": Command(_status, "Count the jobs by state."),
    "run": Command(_run, "Run a job as soon as there is a slot, regardless of its schedule.", "JOB", changes=True),
    "runall": Command(_run_all, "Run all jobs as soon as there are slots.", changes=True),
    "reload": Command(_reload, "Read the configuration again.", changes=True),
}
