"""Child processes: plain commands, each in a session of its own, that end when they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

log = logging.getLogger(__name__)
GRACE = timedelta(seconds=30)
"""How long a child may take to tidy up after SIGTERM."""


class TimeLimitError(Exception):
    """A child took longer than it may, and was ended."""


async def run(
    command: Sequence[str],
    logfile: Path,
    *,
    limit: timedelta | None = None,
    grace: timedelta = GRACE,
    given: bytes | None = None,
) -> int:
    """Run a command and return its exit code, that of a signal being negative.

    What it prints is appended to `logfile`, which is opened anew for each command: it may have been rotated.
    `given` is what it can read from its standard input. Cancelling this ends the command and all that it has started.

    Raises:
        TimeLimitError: it took longer than `limit`.
        OSError: it can not be started, or there is no logfile to be had.
    """
    output = await asyncio.to_thread(open_log, logfile)
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL if given is None else PIPE, stdout=output, stderr=output, start_new_session=True
        )
    finally:
        os.close(output)
    log.debug("process %d: %s", process.pid, " ".join(command))
    await _end(process, limit, grace, given)
    return int(process.returncode or 0)


async def output_of(command: Sequence[str], *, limit: timedelta, grace: timedelta = GRACE) -> tuple[int, bytes]:
    """Run a command and return its exit code and what it printed to its standard output; raises as `run` does."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, start_new_session=True
    )
    printed = await _end(process, limit, grace, None)
    return int(process.returncode or 0), printed


async def _end(process: Process, limit: timedelta | None, grace: timedelta, given: bytes | None) -> bytes:
    """Wait for the end of a process, or bring it about."""
    try:
        async with asyncio.timeout(limit.total_seconds() if limit else None):
            printed, _ = await process.communicate(given)
    except TimeoutError:
        await _terminate(process, grace)
        raise TimeLimitError from None
    except asyncio.CancelledError:
        await _terminate(process, grace)
        raise
    return printed or b""


async def _terminate(process: Process, grace: timedelta) -> None:
    """End a process and all of its group: kindly first, then for sure."""
    _signal_group(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(grace.total_seconds()):
            await process.wait()
    except TimeoutError:
        log.warning("process %d did not end within %s of SIGTERM and is killed", process.pid, grace)
    _signal_group(process, signal.SIGKILL)
    await process.wait()


def _signal_group(process: Process, number: signal.Signals) -> None:
    """Signal what is left of a process's group; its leader may have ended before the others."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def open_log(path: Path) -> int:
    """Open a job's log so that what is written goes to its end."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
