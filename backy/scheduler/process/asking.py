"""Asks a running scheduler through the socket in its base directory, as `backy client` and `backy check` do.

A connection has one question and one answer, each a JSON object on one line.

    {"command": ["jobs", "web"]}
    {"ok": true, "text": "...", "data": [...]}          or          {"ok": false, "text": "what is wrong"}

The socket belongs to the owner of the scheduler alone, so every client may do everything.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from backy.durable import closed_at_end
from backy.errors import BackyError

SOCKET = ".socket"


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
