"""The socket of a scheduler in its base directory; `backy.scheduler.process.asking` is the other end."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec

from backy.errors import BackyError
from backy.scheduler.console.commands import Answer
from backy.scheduler.process.asking import SOCKET, Question, Reply, short

log = logging.getLogger(__name__)
LONGEST_QUESTION = 64 * 1024
"""Longest line of a client, in bytes."""
PATIENCE = timedelta(seconds=30)
"""Time limit for receiving a question, and for sending an answer."""

Answering = Callable[[Sequence[str]], Awaitable[Answer]]
"""Executes the command in some words. Raises BackyError."""


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
    with short(directory) as folder:
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
