"""The base directory: one scheduler holds it, and is asked at a socket in it, as `backy client` and `backy check` do.

A connection has one question and one answer, each a JSON object on one line.

    {"command": ["jobs", "web"]}
    {"ok": true, "text": "...", "data": [...]}          or          {"ok": false, "text": "what is wrong"}

The socket belongs to the owner of the scheduler alone, so every client may do everything.
"""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from backy.durable import closed_at_end
from backy.errors import BackyError, ExitCode

LOCK = ".lock"
SOCKET = ".socket"


class SchedulerRunningError(BackyError):
    """Another scheduler serves the base directory."""

    exit_code = ExitCode.UNAVAILABLE


@contextmanager
def held(path: Path) -> Iterator[Callable[[], None]]:
    """Hold a base directory, the one with all repositories; yield what checks that its path still leads there.

    Raises:
        SchedulerRunningError: another scheduler holds the lock.
        BackyError: the directory is missing or can not be used; or, by the check, the path leads elsewhere.
    """
    # The directory is not created: more likely its disk is not mounted, and backups would fill the one below.
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise BackyError(f"the base directory {path} can not be used: {error.strerror}; is it mounted?") from error
    with closed_at_end(lock):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SchedulerRunningError(f"another scheduler serves {path}") from None
        yield partial(_check, path, lock)


def _check(path: Path, lock: int) -> None:
    """Raise BackyError unless a path leads to the directory that was locked."""
    # After the disk was unmounted there is an empty directory of the same name.
    with suppress(FileNotFoundError):
        if os.path.samestat((path / LOCK).stat(), os.fstat(lock)):
            return
    raise BackyError(f"{path} is not the directory that it was when the scheduler began; is it mounted?")


class Question(msgspec.Struct):
    """The request of a client."""

    command: list[str]


class Reply(msgspec.Struct, omit_defaults=True):
    """The response to a `Question`."""

    ok: bool
    text: str
    """For people: the answer, or an error."""
    data: Any = None
    """For programs."""


class SilentError(BackyError):
    """No scheduler answers."""


class NotAllowedError(BackyError):
    """The socket is another user's: nobody can tell whether a scheduler would answer."""


def ask(directory: Path, command: Sequence[str], limit: timedelta | None = None) -> Reply:
    """Send a command to the scheduler of a base directory and return its reply.

    Args:
        directory: The base directory.
        command: Name and arguments of the command.
        limit: How long the scheduler may take; None means as long as it wants.

    Raises:
        SilentError: no scheduler answers.
        NotAllowedError: the socket belongs to somebody else.
    """
    where = directory / SOCKET
    try:
        with socket.socket(socket.AF_UNIX) as connection, short(directory) as folder:
            connection.settimeout(limit.total_seconds() if limit else None)
            connection.connect(f"{folder}/{SOCKET}")
            connection.sendall(msgspec.json.encode(Question(list(command))) + b"\n")
            with connection.makefile("rb") as stream:
                answer = stream.readline()
    except PermissionError as error:
        raise NotAllowedError(f"the scheduler can not be asked at {where}: {error.strerror}") from error
    except TimeoutError as error:
        raise SilentError(f"the scheduler takes too long to answer at {where}") from error
    except OSError as error:
        raise SilentError(f"no scheduler answers at {where}: {error.strerror}; does one run?") from error
    try:
        return msgspec.json.decode(answer, type=Reply)
    except msgspec.DecodeError:
        # nothing, or the beginning of an answer
        raise SilentError("the scheduler has ended before it answered") from None


@contextmanager
def short(directory: Path) -> Iterator[str]:
    """Yield a short path of a directory."""
    # The address of a socket has 108 bytes at most, and a path can be longer.
    with closed_at_end(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as descriptor:
        yield f"/proc/self/fd/{descriptor}"
