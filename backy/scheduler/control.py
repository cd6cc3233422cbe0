"""The socket for `backy client`: one question and one answer for each connection, each a JSON object on one line.

    {"command": ["jobs", "web"]}
    {"ok": true, "text": "...", "data": [...]}          or          {"ok": false, "text": "what is wrong"}

The socket is in the base directory and its owner's alone, so whoever can connect may do everything. Its path can be too
long for the system's call; so it is reached by way of an open directory.
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
from backy.scheduler.commands import Answer

log = logging.getLogger(__name__)
SOCKET = ".socket"
LONGEST_QUESTION = 64 * 1024
PATIENCE = timedelta(seconds=30)
"""How long a question may take to arrive, and its answer to be taken."""

Answering = Callable[[Sequence[str]], Awaitable[Answer]]
"""Runs the command that some words call; raises BackyError."""


class Question(msgspec.Struct):
    """What a client wants."""

    command: list[str]


class Reply(msgspec.Struct, omit_defaults=True):
    """What it gets."""

    ok: bool
    text: str
    """For people: an answer, or what is wrong."""
    data: Any = None
    """For programs."""


async def serve(directory: Path, answering: Answering) -> asyncio.Server:
    """Answer clients at the socket in a directory."""

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
    """Make the socket, anew if there is one: whoever holds the base directory owns it."""
    opened = socket.socket(socket.AF_UNIX)
    with _short(directory) as folder:
        temporary = Path(folder) / f"{SOCKET}.tmp"
        temporary.unlink(missing_ok=True)
        opened.bind(str(temporary))
        temporary.chmod(0o600)  # before anybody can connect
        temporary.rename(temporary.with_name(SOCKET))
    return opened


async def _reply(question: bytes, answering: Answering) -> Reply:
    """Run a client's command to its end, even if the client does not wait for it."""
    try:
        words = msgspec.json.decode(question, type=Question).command
        answer = await asyncio.shield(asyncio.ensure_future(answering(words)))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Reply(ok=False, text=f"this is no question: {error}")
    except BackyError as error:
        return Reply(ok=False, text=str(error))
    return Reply(ok=True, text=answer.text, data=answer.data)


def ask(directory: Path, command: Sequence[str]) -> Reply:
    """Ask the scheduler of a base directory.

    Raises:
        BackyError: nobody answers.
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
    """Give a short path of a directory."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
