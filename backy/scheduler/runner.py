"""One run of a job: the ordinary commands `backup`, `expire` and `purge`, one after the other."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from backy.errors import BackyError
from backy.exitcodes import ExitCode
from backy.scheduler import children
from backy.scheduler.agenda import Outcome
from backy.scheduler.children import TimeLimitError
from backy.scheduler.config import JobEntry

log = logging.getLogger(__name__)
LOGFILE = "backy.log"
"""A job's log, in its repository."""

CALLBACK_LIMIT = timedelta(minutes=10)
"""How long `backup-completed-callback` may take."""

_TAIL = 4096
"""Bytes at the end of a log in which the cause of a failure is looked for."""


class Result(NamedTuple):
    """How a run ended."""

    outcome: Outcome
    error: str | None = None
    """What went wrong, even if the backup itself is done."""


@dataclass
class Runner:
    """Runs jobs."""

    backy: Sequence[str]
    """The program `backy` with what stands before its options."""
    prepare: Callable[[JobEntry], Path]
    """Writes a job's `config` where it is not as it should be, and returns its repository; called in a thread."""
    callback: Path | None = None
    grace: timedelta = children.GRACE

    async def run(self, job: JobEntry, tags: Sequence[str]) -> Result:
        """Back up a job, and after a success remove what has expired. To cancel this ends what runs."""
        try:
            repository = await asyncio.to_thread(self.prepare, job)
            code = await self._backy(job, repository, "backup", "--", ",".join(tags))
        except (BackyError, OSError) as error:
            return Result(Outcome.FAILED, str(error))
        except TimeLimitError:
            return Result(Outcome.FAILED, f"the backup took longer than {job.time_limit} and was ended")
        if code != ExitCode.DONE:
            outcome = Outcome.BUSY if code == ExitCode.BUSY else Outcome.FAILED
            return Result(outcome, await asyncio.to_thread(_cause, repository / LOGFILE, code))
        return Result(Outcome.DONE, await self._follow(job, repository))

    async def _follow(self, job: JobEntry, repository: Path) -> str | None:
        """Do what follows a backup; return what went wrong. The backup is good in any case."""
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
        """Tell the callback of a new revision: the job's name as an argument, the status as its input."""
        status = [*self.backy, "-b", str(repository), "status", "--json"]
        _, printed = await children.output_of(status, limit=CALLBACK_LIMIT, grace=self.grace)
        command = [str(callback), job.name]
        code = await children.run(command, repository / LOGFILE, limit=CALLBACK_LIMIT, grace=self.grace, given=printed)
        if code:
            log.warning("%s: %s ended with exit code %d", job.name, callback, code)

    async def _backy(self, job: JobEntry, repository: Path, *arguments: str) -> int:
        """Run a command of backy on a job's repository and return its exit code."""
        logfile = repository / LOGFILE
        command = [*self.backy, "-b", str(repository), "-l", str(logfile), *arguments]
        return await children.run(command, logfile, limit=job.time_limit, grace=self.grace)


def _cause(logfile: Path, code: int) -> str:
    """Find what a command that failed has printed as its error."""
    if code < 0:
        return f"ended by signal {-code}"
    with logfile.open("rb") as stream:
        stream.seek(max(stream.seek(0, os.SEEK_END) - _TAIL, 0))
        lines = stream.read().decode(errors="replace").splitlines()
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return errors[-1] if errors else f"exit code {code}; {logfile} may tell more"
