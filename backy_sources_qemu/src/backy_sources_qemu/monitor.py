"""Sends commands of QMP, QEMU's machine protocol, to a running machine by its socket."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from qemu.qmp import ConnectError, QMPClient, QMPError

from backy.api import SourceError

TIMEOUT: Final = 60.0
"""Seconds to wait for an answer of QEMU."""


_SILENT: Final = logging.getLogger(f"{__name__}.library")
_SILENT.setLevel(logging.CRITICAL + 1)


class MonitorError(SourceError):
    """QEMU refused a command, or does not answer."""


Answer = Any
"""What QEMU answers to a command: JSON, whose shape the command decides (qemu-qmp-ref(7))."""


class Monitor(Protocol):
    """What commands can be sent to."""

    def command(self, name: str, /, *, descriptor: int | None = None, **arguments: object) -> Answer:
        """Execute one command, to which an open file may belong, and return its answer; raise MonitorError.

        In the names of arguments `_` stands for `-`.
        """


class SocketMonitor:
    """A monitor that has a socket of its own."""

    def __init__(self, what: str, client: QMPClient, loop: asyncio.Runner) -> None:
        self._what = what
        self._client = client
        self._loop = loop

    def command(self, name: str, /, *, descriptor: int | None = None, **arguments: object) -> Answer:
        """Execute one command."""
        with _told(self._what):
            if descriptor is not None:
                self._client.send_fd_scm(descriptor)
            return self._loop.run(asyncio.wait_for(self._client.execute(name, dashed(arguments)), TIMEOUT))


@contextmanager
def connected(what: str, socket: Path) -> Iterator[Monitor | None]:
    """Connect to the QEMU that listens on `socket`; None if nobody does. Raise MonitorError if it does not answer."""
    client = QMPClient()
    # what it has to tell is told once, by us
    client.logger = _SILENT
    with asyncio.Runner() as loop:
        try:
            with _told(what):
                is_there = loop.run(asyncio.wait_for(_connect(client, str(socket)), TIMEOUT))
            yield SocketMonitor(what, client, loop) if is_there else None
        finally:
            with suppress(QMPError, OSError, EOFError, TimeoutError):
                loop.run(asyncio.wait_for(client.disconnect(), TIMEOUT))


async def _connect(client: QMPClient, address: str) -> bool:
    """Connect; return false if nobody listens."""
    try:
        await client.connect(address)
    except ConnectError as error:
        if isinstance(error.exc, ConnectionRefusedError | FileNotFoundError):
            return False
        raise
    return True


def dashed(arguments: dict[str, object]) -> dict[str, object]:
    """Return arguments with the names that QEMU gives them."""
    return {name.replace("_", "-"): value for name, value in arguments.items()}


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what the library raises into MonitorError."""
    try:
        yield
    except TimeoutError as error:
        hint = "does another program use the monitor?"
        raise MonitorError(f"{what}: QEMU does not answer within {TIMEOUT:.0f} s; {hint}") from error
    except (QMPError, OSError, EOFError) as error:
        text = " ".join(str(error).split()) or f"the connection to QEMU is lost ({type(error).__name__})"
        raise MonitorError(f"{what}: {text}") from error
