"""Runs commands as child processes, each in a session of its own so that it can be ended with all its children."""

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
"""How long a child may take to clean up after SIGTERM."""


class TimeLimitError(Exception):
    """A child exceeded its time limit and was ended."""


async def run(
    command: Sequence[str],
    logfile: Path,
    *,
    limit: timedelta | None = None,
    grace: timedelta = GRACE,
    given: bytes | None = None,
) -> int:
    """Run a command and return its exit code; the negative number of a signal that ended it.

    Cancelling this ends the command and all processes that it has started.

    Args:
        command: Program and arguments.
        logfile: What the command prints is appended to this file.
        limit: Time after which the command is ended, or None.
        grace: Time between SIGTERM and SIGKILL.
        given: Content of its standard input.

    Raises:
        TimeLimitError: the command took longer than `limit`.
        OSError: the command can not be started, or the logfile can not be opened.
    """
    # Opened again for each command, as it may have been rotated.
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
    """Run a command and return its exit code and its standard output. Raise the same errors as `run`."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, start_new_session=True
    )
    printed = await _end(process, limit, grace, None)
    return int(process.returncode or 0), printed


async def _end(process: Process, limit: timedelta | None, grace: timedelta, given: bytes | None) -> bytes:
    """Wait for the end of a process and return its output; terminate it at the limit or if cancelled."""
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
    """End a process and its group: SIGTERM, then SIGKILL after `grace`."""
    _signal_group(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(grace.total_seconds()):
            await process.wait()
    except TimeoutError:
        log.warning("process %d did not end within %s of SIGTERM and is killed", process.pid, grace)
    # Also after a clean end: children of the process may have ignored SIGTERM.
    _signal_group(process, signal.SIGKILL)
    await process.wait()


def _signal_group(process: Process, number: signal.Signals) -> None:
    """Send a signal to the group of a process."""
    # The leader of the group may have ended before the others, or all of them may be gone.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def open_log(path: Path) -> int:
    """Open a job's log for appending and return the descriptor."""
    # O_NOFOLLOW: a user who may write to a repository must not direct the scheduler to a file elsewhere.
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
