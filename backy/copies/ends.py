"""What leads to another backup server: `backy serve` as a child, here or by ssh."""

import os
import secrets
import shlex
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from select import select
from typing import IO, Literal, Self, cast
from urllib.parse import urlsplit

from backy.errors import PeerError, raising
from backy.exchange.offer import ALL, Order
from backy.exchange.wire import Hello, Wire
from backy.repository.config import CONFIG

SESSIONS = 4
"""Connections by ssh: one has 2 MiB on the way, which at 150 ms is half of what a line of 200 Mbit/s takes."""
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group, as SO_PEERCRED gives them: socket(7)."""
Mode = Literal["--read-only", "--append"]


@dataclass(frozen=True)
class End:
    """The other side of a copy."""

    place: str
    """As users write it."""
    command: Sequence[str]
    """The command that serves it."""
    name: str
    """Name of the repository."""
    mode: Mode
    """What it is asked for."""
    sessions: int = 1
    """How many connections to it are of use."""

    def of(self, disk: str) -> Self:
        """Return the end of a disk of the machine."""
        return replace(self, place=f"{self.place}/{disk}", name=f"{self.name}/{disk}")


def end_of(target: str, mode: Mode) -> End:
    """Return the end that a user means: `ssh://[USER@]HOST[:PORT]/NAME`, or a directory.

    Raises:
        PeerError: there can be no such end.
    """
    if target.startswith("ssh://"):
        try:
            parts = urlsplit(target)
            port = ["-p", str(parts.port)] if parts.port else []
        except ValueError as error:
            raise PeerError(f"{target} is no address: {error}") from error
        name = parts.path.rpartition("/")[2]
        if not parts.hostname or not name:
            raise PeerError(f"{target} is no repository of another server: write ssh://HOST/NAME")
        user = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname
        # a forced command, as the other server should have for this key, takes the place of this one
        served = shlex.join(["backy", "serve", mode, parts.path])
        ssh = ["ssh", "-oBatchMode=yes", "-oConnectTimeout=30", "-oServerAliveInterval=30", *port, "--", user]
        return End(target, [*ssh, served], name, mode, SESSIONS)
    if "://" in target:
        raise PeerError(f"{target} can not be reached: write ssh://HOST/NAME, or a directory")
    directory = Path(target).absolute()
    # never made: it may lie on a disk that is not mounted
    if not directory.is_dir():
        raise PeerError(f"there is no folder {directory}: is its disk mounted?")
    if not (directory / CONFIG).exists():
        raise PeerError(f"{directory} is no repository; 'backy -b {directory} pull SOURCE' makes one of copies")
    program = [sys.executable, "-P", "-c", "from backy.cli.main import main; main()"]
    return End(str(directory), [*program, "serve", mode, str(directory)], directory.name, mode)


@contextmanager
def connected(end: End, order: Order = ALL) -> Iterator[tuple[Wire, Callable[[], list[Wire]]]]:
    """Start what serves the other side; yield a connection to it, and what makes others; all share the limits.

    Raises:
        PeerError: it can not be started, or ends with an error.
    """
    names = [secrets.token_hex(16) for _ in range(1, end.sessions)]
    with ExitStack() as stack:

        def session(name: str, others: Sequence[str] = ()) -> Wire:
            # the first one says what is wrong
            child = stack.enter_context(_child(end, subprocess.DEVNULL if name else None))
            reading, writing = (cast(IO[bytes], pipe) for pipe in (child.stdout, child.stdin))
            wire = Wire(reading, writing, order.limits)
            wire.send(Hello(end.name, end.mode == "--append", order.dry_run, session=name, others=[*others]))
            return wire

        def more() -> list[Wire]:
            return [session(names.pop()) for _ in range(len(names))]

        yield session("", names), more


def lend(name: str, wire: Wire) -> None:
    """Let another process of this user have a connection that was named to it, until one of the three has ended.

    Each connection by ssh is a process of its own here, and only one of them stores.
    """
    with socket.socket(socket.AF_UNIX) as meeting:
        # a name without a file: nothing is left of a process that is killed
        meeting.bind(f"\0backy-{name}")
        meeting.listen()
        pipes = wire.reading.fileno(), wire.writing.fileno()
        while meeting.fileno() in select([meeting.fileno(), pipes[0]], [], [])[0]:
            with meeting.accept()[0] as other:
                credentials = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                if _CREDENTIALS.unpack(credentials)[1] == os.geteuid():
                    socket.send_fds(other, [b"+"], pipes)
                    other.recv(1)
                    return


def borrowed(names: set[str], stack: ExitStack) -> Iterator[Wire]:
    """Yield the connections of these names that have come by now; remove their names. `stack` gives them back."""
    for name in [*names]:
        # it may be on its way still
        with suppress(ConnectionRefusedError), ExitStack() as own:
            meeting = own.enter_context(socket.socket(socket.AF_UNIX))
            meeting.connect(f"\0backy-{name}")
            pipes = socket.recv_fds(meeting, 1, 2)[1]
            names.discard(name)
            if pipes:
                reading, writing = (own.enter_context(os.fdopen(*one)) for one in zip(pipes, ("rb", "wb"), strict=True))
                stack.enter_context(own.pop_all())
                yield Wire(reading, writing)


@contextmanager
def _child(end: End, stderr: int | None) -> Iterator[subprocess.Popen[bytes]]:
    with raising(PeerError, f"{end.command[0]} can not be started, install openssh-client"):
        child = subprocess.Popen(end.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)  # noqa: S603  # chosen by the operator
    try:
        yield child
    finally:
        # closed pipes end it, also if it is in the middle of something
        for pipe in filter(None, (child.stdin, child.stdout)):
            with suppress(OSError):
                pipe.close()
        child.wait()
