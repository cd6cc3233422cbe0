"""Runs what may hang: commands as child processes, and functions in threads. Waits no longer for them than it wants.

A child has a session of its own, so that it can be ended with all its children. Neither others nor the end of the
scheduler wait for a thread, as one may hang on a network file system.
"""

import asyncio
import errno
import logging
import os
import signal
import stat
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import msgspec

from backy.durable import closed_at_end
from backy.errors import BackyError
from backy.system.progress import HEARTBEAT

log = logging.getLogger(__name__)
Returned = TypeVar("Returned")
GRACE = timedelta(seconds=30)
"""How long a child may take to clean up after SIGTERM."""

_BEATS = 2**16
"""Bytes read from a heartbeat at once: all that a pipe holds, so that the last line is a whole one."""


class HangingError(BackyError):
    """A function took too long, and may never return."""

    def __init__(self, limit: timedelta) -> None:
        super().__init__(f"nothing came for {limit}, as from a network file system that hangs")


async def aside(function: Callable[..., Returned], *arguments: Any, limit: timedelta | None = None) -> Returned:  # noqa: ANN401  # those of the function
    """Call a function in a thread of its own, and return what it returns.

    Raises:
        HangingError: it takes longer than `limit`; its thread is left behind.
    """
    outcome: Future[Returned] = Future()
    # It runs from here on, and nobody who gives up waiting for it can stop it.
    outcome.set_running_or_notify_cancel()

    def work() -> None:
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001  # it is raised below
            outcome.set_exception(error)

    # Not one of a pool: those that hang would leave none to others. A daemon: the process ends without it.
    Thread(target=work, daemon=True).start()
    waiting = asyncio.wrap_future(outcome)
    try:
        if limit and not (await asyncio.wait([waiting], timeout=limit.total_seconds()))[0]:
            raise HangingError(limit)
        return await waiting
    finally:
        waiting.cancel()


async def happened(event: asyncio.Event, within: timedelta) -> bool:
    """Wait until `event` is set or the time is over. Return whether it is set."""
    # The time limit is no error here: those who wait also want to look around now and then.
    with suppress(TimeoutError):
        async with asyncio.timeout(within.total_seconds()):
            return await event.wait()
    return False


class EndedError(BackyError):
    """A child exceeded its time limit, or did nothing for too long, and was ended."""


class Terms(NamedTuple):
    """How long a child may take, and what goes to it and comes from it."""

    limit: timedelta | None = None
    """Time after which it is ended."""
    given: bytes | None = None
    """Content of its standard input."""
    standstill: timedelta | None = None
    """Time without any progress after which it is ended."""
    doing: dict[str, Any] | None = None
    """What is known of the run; what a command of backy tells of its progress is put there."""


FREE = Terms()


async def run(command: Sequence[str], logfile: Path, terms: Terms = FREE) -> int:
    """Run a command and return its exit code; the negative number of a signal that ended it.

    Cancelling this ends the command and all processes that it has started.

    Args:
        command: Program and arguments.
        logfile: What the command prints is appended to this file.
        terms: Its limits, and what is given and known.

    Raises:
        EndedError: the command took too long, or did nothing for too long.
        OSError: the command can not be started, or the logfile can not be opened.
    """
    # Opened again for each command, as it may have been rotated.
    output = await aside(open_log, logfile, limit=terms.standstill)
    heard, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with closed_at_end(heard):
        with closed_at_end(output), closed_at_end(told):
            channels = {"stdin": DEVNULL if terms.given is None else PIPE, "stdout": output, "stderr": output}
            process = await _start(*command, **channels, pass_fds=(told,), env={**os.environ, HEARTBEAT: str(told)})
        log.debug("process %d: %s", process.pid, " ".join(command))
        await _end(process, terms, heard)
    return int(process.returncode or 0)


async def output_of(command: Sequence[str], *, limit: timedelta) -> bytes:
    """Run a command and return its standard output. Raise the same errors as `run`."""
    return await _end(await _start(*command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL), Terms(limit))


async def _start(*command: str, **options: Any) -> Process:  # noqa: ANN401  # those of asyncio
    """Start a process; if that is cancelled, end it with all that it has started until then."""
    # asyncio would kill the process alone, and give it no time to clean up.
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*command, **options, start_new_session=True))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(OSError):  # it can not be started
            await _terminate(await starting)
        raise


async def _end(process: Process, terms: Terms, heartbeat: int = -1) -> bytes:
    """Wait for the end of a process and return its output; terminate it at a limit or if cancelled.

    Progress is a line of the pipe `heartbeat`, the last of which is put into `doing`.
    """
    loop, (limit, given, standstill, doing) = asyncio.get_running_loop(), terms

    def beat() -> None:
        # At its end, which is that of the child, the pipe would be readable for ever.
        if not (told := os.read(heartbeat, _BEATS)):
            loop.remove_reader(heartbeat)
        elif standstill and not moving.expired():
            moving.reschedule(loop.time() + standstill.total_seconds())
        if told and doing:
            doing.update(msgspec.json.decode(told.splitlines()[-1]))

    try:
        async with _within(limit) as whole, _within(standstill) as moving:
            if heartbeat >= 0:
                loop.add_reader(heartbeat, beat)
            printed, _ = await process.communicate(given)
    except (TimeoutError, asyncio.CancelledError) as error:
        await _terminate(process)
        if isinstance(error, asyncio.CancelledError):
            raise
        why = f"took longer than {limit}" if whole.expired() else f"read or stored nothing for {standstill}"
        raise EndedError(f"{why} and was ended") from None
    finally:
        if heartbeat >= 0:
            loop.remove_reader(heartbeat)
    return printed or b""


def _within(limit: timedelta | None) -> asyncio.Timeout:
    return asyncio.timeout(limit.total_seconds() if limit else None)


async def _terminate(process: Process) -> None:
    """End a process and its group: SIGTERM, then SIGKILL after `GRACE`."""
    late = f"did not end within {GRACE} of SIGTERM and is killed"
    stuck = "can not be killed, as one that waits for a disk, and is left behind"
    # SIGKILL also after a clean end: children of the process may have ignored SIGTERM.
    for number, text in ((signal.SIGTERM, late), (signal.SIGKILL, stuck)):
        # The leader of the group may have ended before the others, or all of them may be gone.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if not (await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=GRACE.total_seconds()))[0]:
            log.warning("process %d %s", process.pid, text)


def open_log(path: Path) -> int:
    """Open a job's log for appending and return the descriptor."""
    # O_NOFOLLOW: a user who may write to a repository must not direct the scheduler to a file elsewhere.
    # O_NONBLOCK: nor to a pipe, which would wait for a reader.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o640)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return descriptor
