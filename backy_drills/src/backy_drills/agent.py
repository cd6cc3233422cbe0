"""The talk with QEMU's guest agent, which runs a command in the guest. Pure: who has the port sends and receives."""

import base64
import json
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

_LONGEST: Final = 2**20
"""Bytes of an answer: a guest answers."""


class Agent:
    """Has the guest's shell run a command; None is none. `send` is what goes to the port next."""

    def __init__(self, command: str | None) -> None:
        self.done = command is None
        self.fault, self.told = "", b""
        """Why the command did not succeed, and what it printed."""
        self._command, self._read, self._process, self._sync = command, b"", 0, secrets.randbits(31) | 1
        self.send = b"" if self.done else b"\xff" + _words("guest-sync-delimited", id=self._sync)

    def take(self, data: bytes) -> Iterator[str]:
        """Read on; yield the names of new signs of life."""
        *lines, self._read = (self._read + data)[-_LONGEST:].split(b"\n")
        for line in lines:
            try:
                answer = json.loads(line.rpartition(b"\xff")[2])
            except ValueError:
                continue  # what was in the port before
            if isinstance(answer, dict) and not self.done:
                yield from self._answered(answer.get("return"), answer.get("error"))

    def ask_again(self) -> None:
        """Ask whether the command has ended."""
        self.send = _words("guest-exec-status", pid=self._process) if self._process else b""

    def _answered(self, returned: Any, error: Any) -> Iterator[str]:  # noqa: ANN401  # whatever a guest says
        if self._sync:
            if returned == self._sync:
                self._sync = 0
                words = {"path": "/bin/sh", "arg": ["-c", self._command], "capture-output": True}
                self.send = _words("guest-exec", **words)
                yield "agent"
        elif error or not isinstance(returned, dict):
            self.done, self.fault = True, f"the guest agent runs no command: {error}"[:500]
        elif "exited" not in returned:
            self._process = returned.get("pid", 0)
        elif returned["exited"]:
            self.done = True
            with suppress(ValueError):  # it is no Base64
                self.told = b"".join(base64.b64decode(str(returned.get(name, ""))) for name in ("out-data", "err-data"))
            if returned.get("exitcode") == 0:
                yield "command"
            else:
                last = " ".join(self.told.decode(errors="replace").split())[-300:]
                self.fault = f"'{self._command}' fails in the guest with {returned.get('exitcode')}: {last}"


def _words(command: str, **arguments: Any) -> bytes:  # noqa: ANN401  # JSON
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
