"""The socket for `backy client`. A connection has one question and one answer, each a JSON object on one line.

    {"command": ["jobs", "web"]}
    {"ok": true, "text": "...", "data": [...]}          or          {"ok": false, "text": "what is wrong"}

The socket is in the base directory and belongs to the owner of the scheduler alone, so every client may do everything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from backy.errors import BackyError
from backy.scheduler.console.commands import Answer

log = logging.getLogger(__name__)
SOCKET = ".socket"
LONGEST_QUESTION = 64 * 1024
"""Longest line of a client, in bytes."""
PATIENCE = timedelta(seconds=30)
"""Time limit for receiving a question, and for sending an answer."""

Answering = Callable[[Sequence[str]], Awaitable[Answer]]
"""Executes the command in some words. Raises BackyError."""


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


async def serve(directory: Path, answering: Answering) -> asyncio.Server:
    """Start to answer clients at the socket in `directory`."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                question = await reader.readline()
            reply = await _reply(question, answering)
            writer.write(msgspec.json.encode(reply) + b"\n")
            async with asyncio.timeout(PATIENCE.total_seconds()):
                await writer.drain()
        except (TimeoutError, ValueError, OSError) as error:
            log.debug("a client has ended: %r", error)
        finally:
            writer.close()

    return await asyncio.start_unix_server(talk, sock=_bound(directory), limit=LONGEST_QUESTION)


def _bound(directory: Path) -> socket.socket:
    """Create the socket, replacing an existing one."""
    # An existing one is a leftover: this scheduler holds the lock of the directory. The new one gets its name only
    # after its permissions, so that clients find a socket at any time.
    opened = socket.socket(socket.AF_UNIX)
    with _short(directory) as folder:
        temporary = Path(folder) / f"{SOCKET}.tmp"
        temporary.unlink(missing_ok=True)
        opened.bind(str(temporary))
        temporary.chmod(0o600)  # before anybody can connect
        temporary.rename(temporary.with_name(SOCKET))
    return opened


async def _reply(question: bytes, answering: Answering) -> Reply:
    """Execute the command of a client."""
    # Shielded: a command that changes something is not to be interrupted because its client has gone.
    try:
        words = msgspec.json.decode(question, type=Question).command
        answer = await asyncio.shield(asyncio.ensure_future(answering(words)))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Reply(ok=False, text=f"this is no question: {error}")
    except BackyError as error:
        return Reply(ok=False, text=str(error))
    return Reply(ok=True, text=answer.text, data=answer.data)


def ask(directory: Path, command: Sequence[str]) -> Reply:
    """Send a command to the scheduler of a base directory and return its reply.

    Raises:
        BackyError: no scheduler answers.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection, _short(directory) as folder:
            connection.connect(f"{folder}/{SOCKET}")
            connection.sendall(msgspec.json.encode(Question(list(command))) + b"\n")
            with connection.makefile("rb") as stream:
                answer = stream.readline()
    except OSError as error:
        raise BackyError(f"no scheduler answers at {directory / SOCKET}: {error.strerror}; does one run?") from error
    if not answer:
        raise BackyError("the scheduler has ended before it answered")
    return msgspec.json.decode(answer, type=Reply)


@contextmanager
def _short(directory: Path) -> Iterator[str]:
    """Yield a short path of a directory."""
    # The address of a socket has 108 bytes at most, and a path can be longer.
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
