"""Loads and calls plugins in a process of their own, `host`, which they may crash, block or fill with text."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

import msgspec

from backy.errors import PluginError
from backy.plugins.discovery import Plugin

log = logging.getLogger(__name__)
LIMIT = 30.0
"""Seconds that importing a plugin, and each call of it, may take."""

_SPARE = 10.0
"""Seconds after its own limit within which the other process has to answer."""

_LAST_SECONDS = 1.0
"""Seconds that the other process has for its own end."""


class Answer(msgspec.Struct):
    """What became of a call of a plugin. It is also the message of the other process."""

    returned: Any = None
    failure: str | None = None
    """What it raised, or how its process ended; None if the call has returned."""
    refused: bool = False
    """Whether it raised a BackyError, which is meant for users."""
    where: str = ""
    """A traceback for the log, if it raised anything."""
    logged: list[tuple[str, int, str]] = []
    """What it has logged: names of loggers, levels and texts."""


class _EndedError(Exception):
    """The process has ended, or did not answer in time."""


def examined(plugin: Plugin, limit: float = LIMIT) -> tuple[str | None, str | None]:
    """Load a plugin of any kind in a process of its own, and check it against the contract.

    Returns:
        Why it can not be used, or None; and what its author wrote, if it can be used.
    """
    with closing(Host([plugin], limit)) as host:
        answer = host.ask(plugin, do="describe")
        return answer.failure, answer.returned


class Host:
    """Plugins that are loaded in another process. `close` ends the process."""

    def __init__(self, plugins: Sequence[Plugin], limit: float = LIMIT) -> None:
        """Start the process and load `plugins`. One that ends or blocks the process is left out of a new one."""
        self.limit = limit
        self.failures: dict[Plugin, str] = {}
        """Why plugins can not be used."""
        self._order: dict[str, list[Plugin]] = {}
        self.plugins: list[Plugin] = []
        self._process: _Process | None = None
        left = list(plugins)
        while left and not self._process:
            left = self._load(left)

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.end()
            self._process = None

    def implementing(self, hook: str) -> list[Plugin]:
        """Return the plugins that have `hook`, in the order in which they are called."""
        return self._order.get(hook, [])

    def ask(self, plugin: Plugin, **request: object) -> Answer:
        """Send a request about one plugin and return the answer."""
        if plugin in self.failures or not self._process:
            return Answer(failure=self.failures.get(plugin, "its process has ended"))
        try:
            self._process.send({"plugin": self.plugins.index(plugin), "limit": self.limit, **request})
            answer = msgspec.json.decode(self._process.receive(self.limit + _SPARE), type=Answer)
        except _EndedError as error:
            # It is the process itself, not the child for this call: threads of some plugin may have done anything.
            self._process.end()
            self._process = None
            self._load([one for one in self.plugins if one not in self.failures])
            return Answer(failure=f"ended {error}")
        for name, level, text in answer.logged:
            logging.getLogger(name).log(level, "%s", text)
        return answer

    def _load(self, plugins: list[Plugin]) -> list[Plugin]:
        """Start a process with `plugins`; return those to try again with if one of them has ended it."""
        process, loading = _Process(plugins), None
        try:
            while "ready" not in (message := msgspec.json.decode(process.receive(self.limit))):
                if "loading" in message:
                    loading = plugins[message["loading"]]
                else:
                    self.failures[plugins[message["failed"]]] = message["cause"]
        except _EndedError as error:
            process.end()
            if loading is None:
                raise PluginError(f"no process for plugins can be started: it ended {error}") from error
            self.failures[loading] = f"importing it ended {error}"
            return [plugin for plugin in plugins if plugin not in self.failures]
        except BaseException:
            process.end()
            raise
        self._process, self.plugins = process, plugins
        self._order = {hook: [plugins[index] for index in order] for hook, order in message["ready"].items()}
        return []


class _Process:
    """The other process, and the connection to it."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        # Only now, as it takes long to import, and most machines have no event plugins.
        from multiprocessing import Pipe

        self._connection, theirs = Pipe()
        with theirs:
            # -P: the current folder is often a repository, and must not be a place to import from.
            # A session of its own: Ctrl-C on a terminal interrupts the command, which then ends this process.
            # Standard error for all that is printed: standard output is this command's data.
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter and a number
                [sys.executable, "-P", "-m", "backy.plugins.host", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        described = [
            (one.kind.name, one.name, one.entry_point.value, one.distribution, one.version, one.file) for one in plugins
        ]
        level = logging.getLogger().getEffectiveLevel()
        self.send({"level": level, "path": sys.path, "plugins": described})

    def send(self, message: Mapping[str, object]) -> None:
        """Send a message. If the process has ended, the answer will tell."""
        with suppress(OSError):
            self._connection.send_bytes(msgspec.json.encode(message, enc_hook=os.fspath))

    def receive(self, limit: float) -> bytes:
        """Return the next message.

        Raises:
            _EndedError: the process has ended, or sent none within `limit` seconds.
        """
        if not self._connection.poll(limit):
            raise _EndedError(f"after {limit:g} seconds, its limit")
        try:
            return self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise _EndedError(ending(self._process.wait())) from error

    def end(self) -> None:
        """End the process."""
        self._connection.close()
        # Without a connection it kills what it has started, and ends; but a thread of a plugin could keep it from that.
        try:
            self._process.wait(_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def ending(code: int) -> str:
    """Return how a process ended that has this exit code, which is negative for a signal."""
    return f"with exit code {code}" if code >= 0 else f"by signal {-code}"
