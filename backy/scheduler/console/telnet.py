"""The console: telnet on local addresses, line by line, for untrusted clients.

A client may be slow, silent, flooding, half closed or malicious. So there are limits: for the length of a line, for
silence, for the time to receive an answer, and for the number of clients.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from importlib.metadata import version
from typing import Any, cast

from telnetlib3.server_base import BaseServer
from telnetlib3.stream_reader import TelnetReader
from telnetlib3.stream_writer import TelnetWriter

from backy.plugins.discovery import CORE_DISTRIBUTION
from backy.scheduler.configuration.location import listener
from backy.scheduler.process.base_directory import Reply
from backy.terminal.plain import printable

log = logging.getLogger(__name__)
logging.getLogger("telnetlib3").setLevel(logging.CRITICAL)  # anybody who can connect could fill the log

MOST_CLIENTS = 100
LONGEST_LINE = 4096
MOST_UNANSWERED = 64 * 1024
"""Bytes that a client may send before a line of it is answered, including those of the protocol."""

SILENCE = timedelta(minutes=10)
"""Longest time without a line from a client."""

SLOWNESS = timedelta(seconds=30)
"""Longest time for a client to receive a piece of an answer."""

PIECE = 64 * 1024
"""Bytes of an answer that are sent at once."""

Answering = Callable[[Sequence[str]], Awaitable[Reply]]
"""Executes the command in some words, also if the client goes meanwhile. The reply tells why it fails."""


class Console:
    """Listens for clients and keeps their connections."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.clients: set[Connection] = set()
        self.addresses: tuple[str, ...] = ()
        """Addresses at which the console listens."""
        self.problems: tuple[str, ...] = ()
        """Why it does not listen at other configured addresses."""
        self._servers: list[asyncio.Server] = []

    async def listen(self, addresses: Iterable[str], port: int) -> None:
        """Listen at these addresses and close all others. Log addresses that can not be opened."""
        self.close()
        listening, problems = [], []
        for address in addresses:
            try:
                opened = listener(address, port)
            except OSError as error:
                # Backups must go on if a port is taken, and the other addresses must work.
                problems.append(f"the console can not listen at {address} port {port}: {error.strerror}")
                log.error("%s", problems[-1])  # noqa: TRY400  # the cause says all
                continue
            self._servers.append(await asyncio.get_running_loop().create_server(lambda: Connection(self), sock=opened))
            host, port, *_ = opened.getsockname()
            listening.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        self.addresses, self.problems = tuple(listening), tuple(problems)

    def drop_idle(self) -> bool:
        """Drop the client that has been silent for longest; return false if none is."""
        # Or a hundred of them, which anybody can be, would lock out all others.
        silent = [client for client in self.clients if client.silent_since is not None]
        if silent:
            longest = min(silent, key=lambda client: client.silent_since or 0.0)
            self.clients.discard(longest)
            longest.drop()
        return bool(silent)

    def close(self) -> None:
        """Stop listening and drop all clients."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for client in list(self.clients):
            client.drop()


class _Writer(TelnetWriter):
    """Negotiates the options of telnet, but ignores all sub-negotiations."""

    # The console needs none of them, and one that is compressed can be a zip bomb.

    def handle_subnegotiation(self, buf: Any) -> None:  # noqa: ANN401  # as it is declared there
        """Ignore a sub-negotiation."""


class Connection(BaseServer):
    """The connection of one client."""

    # Both from `connection_made` on: nothing is called before.
    _socket: asyncio.Transport
    _talk: asyncio.Task[None]

    def __init__(self, console: Console) -> None:
        super().__init__(encoding=False, writer_factory=_Writer, limit=LONGEST_LINE)
        self._console = console
        self._answered = 0
        self.silent_since: float | None = None
        """Time of the loop from which on the client is waited for; None while it is answered."""

    # what asyncio and telnetlib3 call ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to serve the client, or to refuse it if there are too many."""
        super().connection_made(transport)
        self._socket = cast(asyncio.Transport, transport)
        cast(TelnetReader, self.reader).set_transport(transport)
        cast(TelnetWriter, self.writer).compression = False
        full = len(self._console.clients) >= MOST_CLIENTS and not self._console.drop_idle()
        self._console.clients.add(self)
        self._talk = asyncio.get_running_loop().create_task(self._serve(full=full))

    def begin_negotiation(self) -> None:
        """Request no options: a client edits its lines itself."""

    def data_received(self, data: bytes) -> None:
        """Process received bytes, and drop a client that sends too many."""
        super().data_received(data)
        if self.rx_bytes - self._answered > MOST_UNANSWERED:
            log.debug("console: %s sends too much", self)
            self.drop()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes both
        """Keep the connection open to answer a client that has closed its side."""
        cast(TelnetReader, self.reader).feed_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop serving the client."""
        super().connection_lost(exc)
        self._console.clients.discard(self)
        self._talk.cancel()

    # talking ----------------------------------------------------------------------------------------------------------

    def drop(self) -> None:
        """Close the connection without sending what is left."""
        self._socket.abort()

    async def _serve(self, *, full: bool) -> None:
        """Answer line by line, or only tell that there are too many clients, then hang up."""
        try:
            await self._send("Too many clients.\n" if full else f"backy {version(CORE_DISTRIBUTION)}\nReady.\n")
            while not full:
                await self._send("backy> ")
                self.silent_since = asyncio.get_running_loop().time()
                line = await self._line()
                self.silent_since = None
                self._answered = self.rx_bytes
                # A browser that a page has sent here: the lines that follow may be chosen by that page.
                if _HTTP.search(line):
                    break
                words = line.split()
                if words in (["quit"], ["exit"]):
                    await self._send("Goodbye.\n")
                    break
                if words:
                    await self._send(f"{(await self._console.answering(words)).text}\n")
        except (EOFError, TimeoutError, OSError) as error:  # the ways in which clients leave
            log.debug("console: %s has ended: %r", self, error)
        except Exception:
            log.exception("console: internal error")
        # All is sent before, or given up after `SLOWNESS`.
        self._socket.close()
        asyncio.get_running_loop().call_later(SLOWNESS.total_seconds(), self._socket.abort)

    async def _line(self) -> str:
        """Return the next line without control characters.

        Raises:
            EOFError: the client has sent its last line, or the line is too long.
            TimeoutError: no line comes within `SILENCE`.
        """
        reader = cast(TelnetReader, self.reader)
        async with asyncio.timeout(SILENCE.total_seconds()):
            try:
                line = await reader.readuntil_pattern(_END_OF_LINE)
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                raise EOFError from error
        # The words of a line come back in answers and in the log, where they must not control a terminal.
        return "".join(filter(str.isprintable, line.decode(errors="replace")))

    async def _send(self, text: str) -> None:
        """Send a text as fast as the client receives it. Raise TimeoutError if that is too slow."""
        writer = cast(TelnetWriter, self.writer)
        content = printable(text, lines=True).replace("\n", "\r\n").encode(errors="replace")
        for start in range(0, len(content), PIECE):
            writer.write(content[start : start + PIECE])
            async with asyncio.timeout(SLOWNESS.total_seconds()):
                await writer.drain()


_HTTP = re.compile(r"\bHTTP/\d")
_END_OF_LINE = re.compile(rb"\r\n|\r\0|\n|\r")
