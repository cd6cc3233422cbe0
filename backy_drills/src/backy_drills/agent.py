"""The talk with QEMU's guest agent, which runs a command in the guest. Pure: who has the port sends and receives."""

import secrets
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct, field
from msgspec.json import decode, encode

from backy_files.sandbox import GuestError

_LONGEST: Final = 2**25
"""Bytes of an answer that are kept: an agent has 16 MiB of what a command prints, in Base64, and a guest answers."""


class Process(Struct):
    """A process in the guest, and how it has ended."""

    pid: int = 0
    exited: bool = False
    exitcode: int | None = None
    signal: int | None = None
    out: bytes = field(name="out-data", default=b"")
    err: bytes = field(name="err-data", default=b"")


class Answer(Struct):
    """What the agent has to say: a number, a process, or the error."""

    returned: int | Process | None = field(name="return", default=None)
    error: dict[str, str] = {}


def answers(rest: bytes, data: bytes) -> tuple[bytes, list[Answer]]:
    """Return the answers in what has come, `rest` first, and what is no whole line yet."""
    *lines, rest = (rest + data).split(b"\n")
    found = list[Answer]()
    for line in lines:
        # what was in the port before, or is no agent's
        with suppress(ValueError, RecursionError):
            found.append(decode(line.rpartition(b"\xff")[2], type=Answer))
    return rest[-_LONGEST:], found


def talk(
    command: str, sign: Callable[[str], object], show: Callable[[bytes], object]
) -> Generator[bytes, Answer, None]:
    """Have the guest's shell run a command: yield what to send next, take each answer, and show what it has printed.

    Raises:
        GuestError: the agent does not run it, or it does not succeed.
    """
    number = secrets.randbits(31)
    words = b"\xff" + _words("guest-sync-delimited", id=number)
    while (yield words).returned != number:
        words = b""
    sign("agent")
    answer = yield _words("guest-exec", path="/bin/sh", arg=["-c", command], **{"capture-output": True})
    pid = answer.returned.pid if isinstance(answer.returned, Process) else 0
    while isinstance(process := answer.returned, Process) and not process.exited:
        answer = yield _words("guest-exec-status", pid=pid)
    if not isinstance(process, Process):
        raise GuestError(f"the guest agent runs no command: {answer.error.get('desc', '')[:500]!r}")
    show(printed := process.out + process.err)
    if process.exitcode != 0:
        last = " ".join(printed.decode(errors="replace").split())[-300:]
        how = f"signal {process.signal}" if process.exitcode is None else process.exitcode
        raise GuestError(f"'{command}' fails in the guest with {how}: {last}")
    sign("command")


def _words(command: str, **arguments: Any) -> bytes:  # noqa: ANN401  # JSON
    return encode({"execute": command, "arguments": arguments}) + b"\n"
