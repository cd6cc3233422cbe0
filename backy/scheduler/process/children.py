"""Runs what may hang: commands as child processes, and functions in threads. Waits no longer for them than it wants.

A child has a session of its own, so that it can be ended with all its children. Neither others nor the end of the
scheduler wait for a thread, as one may hang on a network file system.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import stat
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from backy.durable import closed_at_end
from backy.errors import BackyError
from backy.system.progress import HEARTBEAT

log = logging.getLogger(__name__)
Returned = TypeVar("Returned")
GRACE = timedelta(seconds=30)
"""How long a child may take to clean up after SIGTERM."""

_BEATS = 4096
"""Bytes read from a heartbeat at once."""


class HangingError(BackyError):
    """A function took too long, and may never return."""

    def __init__(self, limit: timedelta) -> None:
        super().__init__(f"nothing came for {limit}, as from a network file system that hangs")


async def aside(
    function: Callable[..., Returned],
    *arguments: Any,  # noqa: ANN401  # those of the function
    limit: timedelta | None = None,
) -> Returned:
    """Call a function in a thread of its own, and return what it returns.

    Raises:
        HangingError: it takes longer than `limit`; its thread is left behind.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Returned] = loop.create_future()

    def tell(settle: Callable[..., None], result: object) -> None:
        if not outcome.done():  # nobody waits any more
            settle(result)

    def work() -> None:
        settle: Callable[..., None] = outcome.set_result
        try:
            result: object = function(*arguments)
        except BaseException as error:  # noqa: BLE001  # it is raised below
            settle, result = outcome.set_exception, error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, settle, result)

    # Not one of a pool: those that hang would leave none to others. A daemon: the process ends without it.
    Thread(target=work, daemon=True).start()
    try:
        if limit and not (await asyncio.wait([outcome], timeout=limit.total_seconds()))[0]:
            raise HangingError(limit)
        return await outcome
    finally:
        outcome.cancel()


async def happened(event: asyncio.Event, within: timedelta) -> bool:
    """Wait until `event` is set or the time is over. Return whether it is set."""
    # The time limit is no error here: those who wait also want to look around now and then.
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await event.wait()
    except TimeoutError:
        return False


class TimeLimitError(Exception):
    """A child exceeded its time limit and was ended."""


class StandstillError(Exception):
    """A child did nothing for too long and was ended."""


async def run(
    command: Sequence[str],
    logfile: Path,
    *,
    limit: timedelta | None = None,
    given: bytes | None = None,
    standstill: timedelta | None = None,
) -> int:
    """Run a command and return its exit code; the negative number of a signal that ended it.

    Cancelling this ends the command and all processes that it has started.

    Args:
        command: Program and arguments.
        logfile: What the command prints is appended to this file.
        limit: Time after which the command is ended, or None.
        given: Content of its standard input.
        standstill: Time without any progress after which the command is ended, or None.

    Raises:
        StandstillError: the command did nothing for `standstill`.
        TimeLimitError: the command took longer than `limit`.
        OSError: the command can not be started, or the logfile can not be opened.
    """
    # Opened again for each command, as it may have been rotated.
    output = await aside(open_log, logfile, limit=standstill)
    heard, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with closed_at_end(heard):
        with closed_at_end(output), closed_at_end(told):
            process = await _start(
                *command,
                stdin=DEVNULL if given is None else PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(told,),
                env={**os.environ, HEARTBEAT: str(told)},
            )
        log.debug("process %d: %s", process.pid, " ".join(command))
        async with _moving(heard, standstill):
            await _end(process, limit, given)
    return int(process.returncode or 0)


@asynccontextmanager
async def _moving(heartbeat: int, standstill: timedelta | None) -> AsyncIterator[None]:
    """Cancel the body when no byte came from the pipe for `standstill`, and raise StandstillError."""
    if standstill is None:
        yield
        return
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(standstill.total_seconds()) as watch:

            def beat() -> None:
                # At its end, which is that of the child, the pipe would be readable for ever.
                if not os.read(heartbeat, _BEATS):
                    loop.remove_reader(heartbeat)
                elif not watch.expired():
                    watch.reschedule(loop.time() + standstill.total_seconds())

            loop.add_reader(heartbeat, beat)
            try:
                yield
            finally:
                loop.remove_reader(heartbeat)
    except TimeoutError:
        raise StandstillError from None


async def output_of(command: Sequence[str], *, limit: timedelta) -> tuple[int, bytes]:
    """Run a command and return its exit code and its standard output. Raise the same errors as `run`."""
    process = await _start(*command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, start_new_session=True)
    printed = await _end(process, limit, None)
    return int(process.returncode or 0), printed


async def _start(*command: str, **options: Any) -> Process:  # noqa: ANN401  # those of asyncio
    """Start a process; if that is cancelled, end it with all that it has started until then."""
    # asyncio would kill the process alone, and give it no time to clean up.
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*command, **options))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):  # it can not be started
            await _terminate(await starting)
        raise


async def _end(process: Process, limit: timedelta | None, given: bytes | None) -> bytes:
    """Wait for the end of a process and return its output; terminate it at the limit or if cancelled."""
    try:
        async with asyncio.timeout(limit.total_seconds() if limit else None):
            printed, _ = await process.communicate(given)
    except TimeoutError:
        await _terminate(process)
        raise TimeLimitError from None
    except asyncio.CancelledError:
        await _terminate(process)
        raise
    return printed or b""


async def _terminate(process: Process) -> None:
    """End a process and its group: SIGTERM, then SIGKILL after `GRACE`."""
    _signal_group(process, signal.SIGTERM)
    if not await _ends(process):
        log.warning("process %d did not end within %s of SIGTERM and is killed", process.pid, GRACE)
    # Also after a clean end: children of the process may have ignored SIGTERM.
    _signal_group(process, signal.SIGKILL)
    if not await _ends(process):
        log.error("process %d can not be killed, as one that waits for a disk, and is left behind", process.pid)


async def _ends(process: Process) -> bool:
    """Wait for the end of a process, for `GRACE` at most; return whether it has ended."""
    return bool((await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=GRACE.total_seconds()))[0])


def _signal_group(process: Process, number: signal.Signals) -> None:
    """Send a signal to the group of a process."""
    # The leader of the group may have ended before the others, or all of them may be gone.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


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
