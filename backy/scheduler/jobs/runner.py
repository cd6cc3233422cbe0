"""Runs a job: the ordinary commands `backup`, `expire` and `purge`, one after the other."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from backy.errors import BackyError, ExitCode, PluginError
from backy.scheduler.configuration.configuration import JobEntry
from backy.scheduler.jobs.agenda import Outcome
from backy.scheduler.process import children
from backy.scheduler.process.children import StandstillError, TimeLimitError

log = logging.getLogger(__name__)
LOGFILE = "backy.log"
"""Name of a job's log in its repository."""

CALLBACK_LIMIT = timedelta(minutes=10)
"""Time limit of `backup-completed-callback`."""

_TAIL = 4096
"""Bytes at the end of a log that are searched for the cause of a failure."""

_ERROR = re.compile(r"(?:[-0-9]+ [:0-9]+ \[\d+\] ERROR|Error:) (.*)")
"""An error as the log of a command has it, or as standard error has it if there was no log yet."""


class Result(NamedTuple):
    """The result of a run."""

    outcome: Outcome
    error: str | None = None
    """What failed; set also if the backup is done and only a later step failed."""


@dataclass
class Runner:
    """Runs jobs as child processes."""

    backy: Sequence[str]
    """The command line of the program `backy`, without options."""
    prepare: Callable[[JobEntry], Path]
    """Writes a job's `config` if it differs and returns the repository. Called in a thread."""
    callback: Path | None = None
    grace: timedelta = children.GRACE

    async def run(self, job: JobEntry, tags: Sequence[str]) -> Result:
        """Back up a job and, after a success, expire and purge. Cancelling this ends the current command."""
        try:
            repository = await self._prepared(job)
            # After `--`, as a tag may begin with a dash.
            words = ["backup", "--", ",".join(tags)]
            code = await self._backy(job, repository, *words, standstill=job.standstill)
        except (BackyError, OSError) as error:
            return Result(Outcome.FAILED, str(error))
        except TimeLimitError:
            return Result(Outcome.FAILED, f"the backup took longer than {job.time_limit} and was ended")
        except StandstillError:
            return Result(Outcome.FAILED, f"nothing was read or stored for {job.standstill}, so the backup was ended")
        if code != ExitCode.DONE:
            outcome = Outcome.BUSY if code == ExitCode.BUSY else Outcome.FAILED
            return Result(outcome, await asyncio.to_thread(_cause, repository / LOGFILE, code))
        return Result(Outcome.DONE, await self._follow(job, repository))

    async def _prepared(self, job: JobEntry) -> Path:
        """Prepare the job's repository in a thread and return it.

        Raises:
            PluginError: it takes longer than the job may stand still.
        """
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        outcome: Future[Path] = Future()

        def prepare() -> None:
            try:
                outcome.set_result(self.prepare(job))
            except BaseException as error:  # noqa: BLE001  # it is raised below
                outcome.set_exception(error)
            # The loop may have ended meanwhile.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        # A plugin that hangs holds its thread for ever. It must neither take one of those that other jobs wait for nor
        # keep the scheduler from its end.
        Thread(target=prepare, daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), job.standstill.total_seconds() if job.standstill else None)
        except TimeoutError:
            plugins = f"source '{job.source.type}', storage '{job.storage.type}'"
            raise PluginError(f"loading the job's plugins ({plugins}) took longer than {job.standstill}") from None
        return outcome.result()

    async def _follow(self, job: JobEntry, repository: Path) -> str | None:
        """Expire, purge and call the callback. Return what failed, or None."""
        # None of it makes the backup a failure: the job would be backed up again for nothing.
        try:
            for command in ("expire", "purge"):
                code = await self._backy(job, repository, command)
                if code != ExitCode.DONE:
                    cause = await asyncio.to_thread(_cause, repository / LOGFILE, code)
                    return f"'backy {command}' failed after the backup: {cause}"
            if self.callback:
                await self._call_back(self.callback, job, repository)
        except TimeLimitError:
            return f"what follows a backup took longer than {job.time_limit or CALLBACK_LIMIT} and was ended"
        except OSError as error:
            return f"what follows a backup failed: {error}"
        return None

    async def _call_back(self, callback: Path, job: JobEntry, repository: Path) -> None:
        """Run the callback with the job's name as its argument and the repository's status as its input."""
        status = [*self.backy, "-b", str(repository), "status", "--json"]
        _, printed = await children.output_of(status, limit=CALLBACK_LIMIT, grace=self.grace)
        command = [str(callback), job.name]
        code = await children.run(command, repository / LOGFILE, limit=CALLBACK_LIMIT, grace=self.grace, given=printed)
        if code:
            log.warning("%s: %s ended with exit code %d", job.name, callback, code)

    async def _backy(
        self, job: JobEntry, repository: Path, *arguments: str, standstill: timedelta | None = None
    ) -> int:
        """Run a command of backy on a job's repository and return its exit code."""
        # `-l` has the lines of the log dated; what a crash prints goes to the same file as it is.
        logfile = repository / LOGFILE
        command = [*self.backy, "-b", str(repository), "-l", str(logfile), *arguments]
        return await children.run(command, logfile, limit=job.time_limit, grace=self.grace, standstill=standstill)


def _cause(logfile: Path, code: int) -> str:
    """Return the error that a failed command has printed last."""
    if code < 0:
        return f"ended by signal {-code}"
    # Only the end: a log may have grown for years.
    with logfile.open("rb") as stream:
        stream.seek(max(stream.seek(0, os.SEEK_END) - _TAIL, 0))
        lines = stream.read().decode(errors="replace").splitlines()
    # What a plugin prints without a line break stands before the "Error: " of standard error, but never before the
    # dated line, which comes after a whole line.
    errors = [found[1] for line in lines if (found := _ERROR.match(line))]
    return errors[-1] if errors else f"exit code {code}; {logfile} may tell more"
