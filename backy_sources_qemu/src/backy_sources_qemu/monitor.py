"""Reaches a running machine: has a lock and a socket for it, and sends commands of QMP, QEMU's machine protocol."""

import asyncio
import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from qemu.qmp import ConnectError, QMPClient, QMPError

from backy.api import SourceBusyError, SourceError
from backy.durable import closed_at_end
from backy.errors import raising

_RUN: Final = Path("/run")
TIMEOUT: Final = 60.0
"""Seconds to wait for an answer of QEMU."""
_SILENT: Final = logging.getLogger(f"{__name__}.library")
_SILENT.setLevel(logging.CRITICAL + 1)
Command = Callable[..., Any]
"""Executes a command of QMP, by its name and its arguments, in whose names `_` stands for `-`. Raises MonitorError.

An open file may belong to it, as `descriptor`. The answer is JSON, whose shape the command decides (qemu-qmp-ref(7)).
"""


def place(what: str, machine: str) -> Path:
    """Return the beginning of paths for a machine or an image; raise SourceError if no folder can be made."""
    user = os.geteuid()
    folder = _RUN / "backy-qemu" if user == 0 else Path(tempfile.gettempdir(), f"backy-qemu-{user}")
    with raising(SourceError, f"{what}: {folder}"):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & 0o077:
        raise SourceError(f"{what}: {folder} has to be a folder of user {user} and closed to others; remove it")
    return folder / short(machine)


def short(text: str) -> str:
    """Return a name of a few characters that no other text gets."""
    return sha256(text.encode()).hexdigest()[:12]


@contextmanager
def locked(what: str, path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a machine or an image while the context lasts; raise SourceBusyError if it is not to wait."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with closed_at_end(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise SourceBusyError(f"{what}: another backup of it runs") from error
        yield


class MonitorError(SourceError):
    """QEMU refused a command, or does not answer."""


@contextmanager
def connected(what: str, socket: Path) -> Iterator[Command | None]:
    """Connect to the QEMU that listens on `socket`; None if nobody does. Raise MonitorError if it does not answer."""
    client = QMPClient()
    # what it has to tell is told once, by us
    client.logger = _SILENT
    with asyncio.Runner() as loop:

        def command(name: str, /, *, descriptor: int | None = None, **arguments: object) -> Any:  # noqa: ANN401  # JSON
            with _told(what):
                if descriptor is not None:
                    client.send_fd_scm(descriptor)
                return loop.run(asyncio.wait_for(client.execute(name, dashed(arguments)), TIMEOUT))

        try:
            with _told(what):
                is_there = loop.run(asyncio.wait_for(_connect(client, str(socket)), TIMEOUT))
            yield command if is_there else None
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
