"""Runs a job: the ordinary commands `backup` or `pull`, `expire` and `purge`, one after the other, or `push`."""

import errno
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from backy.answers.space import occupied
from backy.durable import open_regular
from backy.errors import BackyError, ExitCode
from backy.plugins.events import HEEDLESS
from backy.scheduler.configuration.configuration import JobEntry
from backy.scheduler.jobs.agenda import Outcome, Result
from backy.scheduler.process import children
from backy.scheduler.process.children import EndedError, Terms, aside
from backy.text.phrases import size

LOGFILE = "backy.log"
"""Name of a job's log in its repository."""

CALLBACK_LIMIT = timedelta(minutes=10)
"""Time limit of `backup-completed-callback`."""

_TAIL = 4096
"""Bytes at the end of a log that are searched for the cause of a failure."""

_MOST = 2**20
"""Bytes at the end of what a run has logged that are searched for hooks that failed."""

_FAILED_HOOK = re.compile(rf"[-0-9]+ [:0-9]+ \[\d+\] WARNING (.*){HEEDLESS}")

_ERROR = re.compile(r"(?:[-0-9]+ [:0-9]+ \[\d+\] ERROR|Error:) (.*)")
"""An error as the log of a command has it, or as standard error has it if there was no log yet."""


@dataclass
class Runner:
    """Runs jobs as child processes."""

    backy: Sequence[str]
    """The command line of the program `backy`, without options."""
    prepare: Callable[[JobEntry], bytes | None]
    """Makes a job's folder, and returns a `config` that the backup has to give it first. Called in a thread."""
    callback: Path | None = None
    doing: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the runs of jobs do, or did last, by name: the `command`, and maybe the `step` and its bytes."""

    async def run(self, job: JobEntry, tags: Sequence[str], options: Sequence[str] = ()) -> Result:
        """Back up or copy a job and, after a success, expire and purge. Cancelling this ends the current command."""
        self.doing[job.name] = {"command": job.verb}
        try:
            config = await aside(self.prepare, job, limit=job.standstill)
            begin = await aside(_length, job.directory / LOGFILE, limit=job.standstill)
            result = await self._run(job, tags, config, options)
        except (BackyError, OSError) as error:
            return Result(Outcome.FAILED, str(error))
        try:
            # Those of a failed run, too: nobody may have been told of the failure.
            failed = await aside(_failed_hooks, job.directory / LOGFILE, begin, limit=job.standstill)
            takes = await aside(occupied, job.directory, limit=job.standstill)
            result = result._replace(occupied=takes.total, shared=takes.shared)
        except (BackyError, OSError) as error:
            failed = str(error)
        return result._replace(error="; ".join(filter(None, [result.error, failed])) or None)

    async def _run(self, job: JobEntry, tags: Sequence[str], config: bytes | None, options: Sequence[str]) -> Result:
        """Run the commands of a job, one after the other."""
        if not job.part and (problem := await self._too_large(job)):
            return Result(Outcome.FAILED, problem)
        words = ["--configure", *options] if config else [*options]
        words += job.beside.words if job.beside else ["--", ",".join(tags)]
        try:
            await self._backy(job, job.verb, *words, given=config)
        except _CommandError as error:
            outcome = Outcome.BUSY if error.code == ExitCode.BUSY else Outcome.FAILED
            return Result(outcome, str(error), full=error.code == ExitCode.FULL)
        return Result(Outcome.DONE) if job.part else await self._follow(job)

    async def _too_large(self, job: JobEntry) -> str | None:
        """Return why a job makes no backup as its repository takes too much space; None if it does not."""
        if not job.max_size or (await aside(occupied, job.directory, limit=job.standstill)).total < job.max_size:
            return None
        # Otherwise it would stay too large for ever: revisions expire after a backup.
        errors, _ = await self._expire_and_purge(job)
        takes = (await aside(occupied, job.directory, limit=job.standstill)).total
        if takes < job.max_size:
            return None
        text = f"the repository takes {size(takes)}, and max-size is {size(job.max_size)}"
        return "; ".join([f"{text}: 'backy forget', then 'backy purge --trash'", *errors])

    async def _follow(self, job: JobEntry) -> Result:
        """Expire, purge and call the callback."""
        # None of it makes the backup a failure: the job would be backed up again for nothing.
        errors, put_off = await self._expire_and_purge(job)
        # Also then: it has to learn of each backup.
        if self.callback and (problem := await self._call_back(self.callback, job)):
            errors.append(f"backup-completed-callback {self.callback}: {problem}")
        return Result(Outcome.DONE, "; ".join(errors) or None, put_off)

    async def _expire_and_purge(self, job: JobEntry) -> tuple[list[str], bool]:
        """Expire and purge; return what failed, and whether other commands were in the way."""
        put_off = False
        for command in ("expire", "purge"):
            try:
                await self._backy(job, command)
            except (_CommandError, OSError) as error:
                # Somebody reads, or changes tags: the next run does it.
                if getattr(error, "code", None) != ExitCode.BUSY:
                    return [f"'backy {command}' failed: {error}"], put_off
                put_off = True
        return [], put_off

    async def _call_back(self, callback: Path, job: JobEntry) -> str | None:
        """Run the callback with the job's name as its argument and the repository's status as its input.

        Returns:
            What is wrong with it, or None.
        """
        status, logfile = [*self.backy, "-b", str(job.directory), "status", "--json"], job.directory / LOGFILE
        try:
            printed = await children.output_of(status, limit=CALLBACK_LIMIT)
            code = await children.run([str(callback), job.name], logfile, Terms(CALLBACK_LIMIT, printed))
        except EndedError as error:
            return f"it {error}"
        except OSError as error:
            return error.strerror or str(error)
        return f"it {_ended(code)}" if code else None

    async def _backy(self, job: JobEntry, command: str, *words: str, given: bytes | None = None) -> None:
        """Run a command of backy on a job's repository; raises _CommandError if it fails."""
        # `-l` has the lines of the log dated; what a crash prints goes to the same file as it is.
        logfile = job.directory / LOGFILE
        line = [*self.backy, "-b", str(job.directory), "-l", str(logfile), command, *words]
        self.doing[job.name] = doing = {"command": command}
        # What follows tells of no progress.
        standstill = job.standstill if command == job.verb else None
        try:
            code = await children.run(line, logfile, Terms(job.time_limit, given, standstill, doing))
        except EndedError as error:
            raise _CommandError(f"the {command} {error}") from None
        if code != ExitCode.DONE:
            raise _CommandError(await _cause(job, code), code)


class _CommandError(BackyError):
    """A command has failed."""

    def __init__(self, cause: str, code: int = ExitCode.FAILED) -> None:
        super().__init__(cause)
        self.code = code


def _ended(code: int) -> str:
    """Tell how a process with this exit code has ended."""
    return f"ended with exit code {code}" if code >= 0 else f"ended by signal {-code}"


def _length(logfile: Path) -> int:
    """Return how long a log is."""
    return logfile.stat().st_size if logfile.exists() else 0


def tail(logfile: Path, length: int, begin: int = 0) -> list[str]:
    """Return the lines in the last `length` bytes of a log, from its byte `begin` on."""
    # Only the end: a log may have grown for years.
    with os.fdopen(open_regular(logfile), "rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        # It is shorter if it was rotated meanwhile.
        stream.seek(max(begin if begin <= end else 0, end - length))
        return stream.read().decode(errors="replace").splitlines()


def _failed_hooks(logfile: Path, begin: int) -> str | None:
    """Return what commands have logged of hooks that failed since the log was `begin` bytes long; None if nothing."""
    # The commands do not fail for it, so that only their logs tell.
    try:
        lines = tail(logfile, _MOST, begin)
    except OSError:
        return None
    failed = {found[1]: None for line in lines if (found := _FAILED_HOOK.match(line))}
    more = f" (and {len(failed) - 1} more; {logfile} has all)" if len(failed) > 1 else ""
    return f"{next(iter(failed))}{more}" if failed else None


async def _cause(job: JobEntry, code: int) -> str:
    """Return the error that a failed command has printed last, as far as its log can be read."""
    if code < 0:
        return _ended(code)
    logfile, full = job.directory / LOGFILE, os.strerror(errno.ENOSPC)
    try:
        lines = await aside(tail, logfile, _TAIL, limit=job.standstill)
    except (BackyError, OSError) as error:
        return f"exit code {code}, and its log can not be read: {error}"
    # What a plugin prints without a line break stands before the "Error: " of standard error, but never before the
    # dated line, which comes after a whole line.
    errors = [found[1] for line in lines if (found := _ERROR.match(line))]
    cause = errors[-1] if errors else f"exit code {code}; {logfile} may tell more"
    # On a full disk, the last line that could be written may be of another failure.
    return full if code == ExitCode.FULL and full not in cause else cause
