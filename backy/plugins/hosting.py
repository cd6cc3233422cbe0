"""Loads a plugin in a process of its own, `host`, which the plugin may crash, block or fill with text."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import Any

import msgspec

from backy.plugins.discovery import Plugin

LIMIT = 30.0
"""Seconds that importing a plugin, and each call of it, may take."""

_SPARE = 10.0
"""Seconds after the limit in which the other process has to notice it."""


class Answer(msgspec.Struct, omit_defaults=True):
    """What became of a call, as the message of the other process."""

    returned: Any = None
    failure: str | None = None
    """What it raised, or how its process ended; None if the call has returned."""
    refused: bool = False
    """Whether it raised a BackyError, which is meant for users."""
    logged: list[tuple[str, int, str]] = []
    """What it has logged: names of loggers, levels and texts."""


def examined(plugin: Plugin, limit: float = LIMIT) -> tuple[str | None, str | None]:
    """Load a plugin of any kind in a process of its own, and check it against the contract.

    Returns:
        Why it can not be used, or None; and what its author wrote, if it can be used.
    """
    with closing(Host(plugin, limit)) as host:
        host.load()
        return host.failure, host.documentation


class Host:
    """A plugin in a process of its own, which `close` ends. If it ends in a call, the next call gets another one."""

    def __init__(self, plugin: Plugin, limit: float = LIMIT) -> None:
        """Take the plugin; the process is started by `load`, or when it is needed."""
        self.plugin = plugin
        self.failure: str | None = None
        """Why the plugin can not be used, or None."""
        self.hooks: dict[str, int] = {}
        """The hooks that it has: -1 for one that is called before those of others, 1 for one after them, else 0."""
        self.documentation: str | None = None
        self.limit = limit
        self._process: Popen[bytes] | None = None

    def load(self) -> None:
        """Start the process and load the plugin there."""
        self._connection, theirs = socket.socketpair()
        self._connection.settimeout(self.limit + _SPARE)
        with theirs:
            # -P: the current folder is often a repository, and must not be a place to import from.
            # A session of its own: Ctrl-C on a terminal interrupts the command, which then ends this process.
            # Standard error for all that is printed: standard output is this command's data.
            number = theirs.fileno()
            command = [sys.executable, "-uP", "-X", "faulthandler", "-m", "backy.plugins.host", str(number)]
            self._process = Popen(command, stdin=DEVNULL, stdout=2, start_new_session=True, pass_fds=[number])  # noqa: S603  # this interpreter and a number
        one, level = self.plugin, logging.getLogger().getEffectiveLevel()
        described = (one.kind.name, one.name, one.value, one.distribution, one.version)
        # What this process would import, from where it would import it.
        answer = self._exchange((described, sys.path, level, self.limit), "importing it ")
        self.failure = answer.failure and answer.failure.removeprefix(f"{one} is broken: ")
        self.hooks, self.documentation = answer.returned or ({}, None)

    def ask(self, hook: str, arguments: Mapping[str, object] = {}, words: Sequence[str] = ()) -> Answer:
        """Call a hook in the process, or run the console command that `words` begin with and that the hook returns.

        Return how that went, or how the process ended meanwhile.
        """
        if not self._process and not self.failure:
            self.load()
        return Answer(failure=self.failure) if self.failure else self._exchange((hook, arguments, words))

    def _exchange(self, message: object, doing: str = "") -> Answer:
        """Send a message and return the answer, or how the process ended without one."""
        try:
            self._connection.sendall(msgspec.json.encode(message, enc_hook=os.fspath) + b"\n")
            with self._connection.makefile("rb") as lines:
                answer = msgspec.json.decode(lines.readline(), type=Answer)
        except (OSError, msgspec.DecodeError) as error:
            code = self.close()
            how = f"with exit code {code}" if code >= 0 else f"by signal {-code}"
            if isinstance(error, TimeoutError) or code == -signal.SIGALRM:
                how = f"after {self.limit:g} seconds, its limit"
            return Answer(failure=f"{doing}ended {how}")
        except BaseException:
            # Its answer would be taken for that to the next message.
            self.close()
            raise
        for name, level, text in answer.logged:
            logging.getLogger(name).log(level, "%s", text)
        return answer

    def close(self) -> int:
        """Wait a moment until the process has ended, if there is one, or kill it; return its exit code."""
        if not (process := self._process):
            return 0
        self._process = None
        self._connection.close()
        # Without a connection it ends, but a thread of the plugin could keep it from that.
        with suppress(TimeoutExpired):
            process.wait(1.0)
        if process.returncode in {None, -signal.SIGALRM}:
            # With all that it has started.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait()
