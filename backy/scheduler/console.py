"""The console: telnet on local addresses, line by line, without any trust in who is there.

A client may be slow, silent, loud, half gone or malicious. So there are limits: of what is read before a line ends, of
how long nothing may happen, of how long a client may take to receive what it asked for, and of how many there are.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from importlib.metadata import version
from typing import Any, cast

from telnetlib3.server_base import BaseServer
from telnetlib3.stream_reader import TelnetReader
from telnetlib3.stream_writer import TelnetWriter

from backy.errors import BackyError
from backy.plugins.discovery import CORE_DISTRIBUTION

log = logging.getLogger(__name__)
logging.getLogger("telnetlib3").setLevel(logging.CRITICAL)  # or whoever can connect could fill the log

MOST_CLIENTS = 100
LONGEST_LINE = 4096
MOST_UNANSWERED = 64 * 1024
"""Bytes that a client may send until a line of it is answered, the protocol's own included."""

RECEIVE_BUFFER = 16 * 1024
"""Of the system, for each connection: no more than this is dealt with at once."""

SILENCE = timedelta(minutes=10)
"""How long a client may send nothing."""

SLOWNESS = timedelta(seconds=30)
"""How long it may take to receive a piece of an answer."""

PIECE = 64 * 1024

Answering = Callable[[Sequence[str]], Awaitable[str]]
"""Runs the command that some words call, and returns what it says; raises BackyError."""


class Console:
    """Listens, and talks with all clients."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.clients: set[Connection] = set()
        self.addresses: tuple[str, ...] = ()
        """Where it listens."""
        self.trouble: tuple[str, ...] = ()
        """Where it should and can not."""
        self._servers: list[asyncio.Server] = []

    async def listen(self, addresses: Iterable[str], port: int) -> None:
        """Listen at these addresses alone. The scheduler does its work all the same if one can not be had."""
        self.close()
        listening, trouble = [], []
        for address in addresses:
            try:
                opened = _listening(address, port)
            except OSError as error:
                trouble.append(f"the console can not listen at {address} port {port}: {error.strerror}")
                log.error("%s", trouble[-1])  # noqa: TRY400  # the cause says all
                continue
            self._servers.append(await asyncio.get_running_loop().create_server(lambda: Connection(self), sock=opened))
            listening.append(_name(opened.getsockname()))
        self.addresses, self.trouble = tuple(listening), tuple(trouble)

    def close(self) -> None:
        """Listen no more and drop all clients."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for client in list(self.clients):
            client.drop()


class _Writer(TelnetWriter):
    """Answers the options of telnet. It has no sub-negotiations: nobody needs them here, and one can be a zip bomb."""

    def handle_subnegotiation(self, buf: Any) -> None:  # noqa: ANN401  # as it is declared there
        """Ignore it."""


class Connection(BaseServer):
    """One client."""

    def __init__(self, console: Console) -> None:
        super().__init__(encoding=False, writer_factory=_Writer, limit=LONGEST_LINE)
        self._console = console
        self._answered = 0
        self._socket: asyncio.Transport | None = None
        self._talk: asyncio.Task[None] | None = None

    # what asyncio and telnetlib3 call ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to talk."""
        super().connection_made(transport)
        self._socket = cast(asyncio.Transport, transport)
        cast(TelnetReader, self.reader).set_transport(transport)
        cast(TelnetWriter, self.writer).compression = False
        full = len(self._console.clients) >= MOST_CLIENTS
        self._console.clients.add(self)
        self._talk = asyncio.get_running_loop().create_task(self._refuse() if full else self._serve())

    def begin_negotiation(self) -> None:
        """Ask for nothing: a client that knows how edits its lines itself."""

    def data_received(self, data: bytes) -> None:
        """Take what the client sends, unless it is too much."""
        super().data_received(data)
        if self.rx_bytes - self._answered > MOST_UNANSWERED:
            log.debug("console: %s sends too much", self)
            self.drop()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes both
        """Go on to answer a client that sends no more."""
        cast(TelnetReader, self.reader).feed_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Talk no more."""
        super().connection_lost(exc)
        self._console.clients.discard(self)
        if self._talk:
            self._talk.cancel()

    # the talk ---------------------------------------------------------------------------------------------------------

    def drop(self) -> None:
        """End the connection at once."""
        if self._socket:
            self._socket.abort()

    async def _refuse(self) -> None:
        await self._send("Too many clients.\n")
        self._hang_up()

    async def _serve(self) -> None:
        """Answer line after line."""
        try:
            await self._send(f"backy {version(CORE_DISTRIBUTION)}\nReady.\n")
            while True:
                await self._send("backy> ")
                words = (await self._line()).split()
                self._answered = self.rx_bytes
                if words in (["quit"], ["exit"]):
                    await self._send("Goodbye.\n")
                    break
                if words:
                    await self._send(f"{await self._answer(words)}\n")
        except (EOFError, TimeoutError, OSError) as error:
            log.debug("console: %s has ended: %r", self, error)
        except Exception:
            log.exception("console: internal error")
        self._hang_up()

    async def _answer(self, words: Sequence[str]) -> str:
        """Run a command to its end, even if the client does not wait for it."""
        try:
            return await asyncio.shield(asyncio.ensure_future(self._console.answering(words)))
        except BackyError as error:
            return str(error)

    async def _line(self) -> str:
        """Return the next line.

        Raises:
            EOFError: there is none, or it is too long.
            TimeoutError: it does not come.
        """
        reader = cast(TelnetReader, self.reader)
        async with asyncio.timeout(SILENCE.total_seconds()):
            try:
                line = await reader.readuntil_pattern(_END_OF_LINE)
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                raise EOFError from error
        return _UNPRINTABLE.sub("", line.decode(errors="replace"))

    async def _send(self, text: str) -> None:
        """Send a text, as fast as the client takes it; raises TimeoutError if that is too slow."""
        writer = cast(TelnetWriter, self.writer)
        content = text.replace("\n", "\r\n").encode(errors="replace")
        for start in range(0, len(content), PIECE):
            writer.write(content[start : start + PIECE])
            async with asyncio.timeout(SLOWNESS.total_seconds()):
                await writer.drain()

    def _hang_up(self) -> None:
        """Close the connection once all is sent, but do not wait for long."""
        if self._socket:
            self._socket.close()
            asyncio.get_running_loop().call_later(SLOWNESS.total_seconds(), self._socket.abort)


_END_OF_LINE = re.compile(rb"\r\n|\r\0|\n|\r")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def _listening(address: str, port: int) -> socket.socket:
    """Open a socket that listens; the connections inherit its buffer."""
    family, kind, protocol, _, where = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
    )[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(where)
    except BaseException:
        opened.close()
        raise
    return opened


def _name(where: Sequence[Any]) -> str:
    host, port = where[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
