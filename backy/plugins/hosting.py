"""Loads and calls plugins in a process of their own, `host`, which they may crash, block or fill with text."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from backy.errors import PluginError
from backy.plugins.discovery import Plugin
from backy.plugins.files import opened

log = logging.getLogger(__name__)
LIMIT = 30.0
"""Seconds that importing a plugin, and each call of it, may take."""

_SPARE = 10.0
"""Seconds after its own limit within which the other process has to answer."""


_LAST_SECONDS = 1.0
"""Seconds that the other process has for its own end."""


class Answer(NamedTuple):
    """What became of a call of a plugin."""

    returned: Any = None
    failure: str | None = None
    """What it raised, or how its process ended; None if the call has returned."""
    refused: bool = False
    """Whether it raised a BackyError, which is meant for users."""
    where: str = ""
    """A traceback for the log, if it raised anything."""


class _EndedError(Exception):
    """The process has ended, or did not answer in time."""


class Examined(NamedTuple):
    """What is found out about a plugin by loading it."""

    cause: str | None
    """Why it can not be used, or None."""
    documentation: str | None
    """What its author wrote, if it can be used."""


def examined(plugin: Plugin, limit: float = LIMIT) -> Examined:
    """Load a plugin of any kind in a process of its own, and check it against the contract."""
    with Host([plugin], limit) as host:
        for cause in host.failures.values():
            return Examined(cause, None)
        (loaded,) = host.plugins
        answer = host.ask(loaded, do="describe")
        return Examined(answer.failure, answer.returned)


class Host:
    """Plugins that are loaded in another process. Use it as a context: the process ends with it."""

    def __init__(self, plugins: Sequence[Plugin], limit: float = LIMIT) -> None:
        """Start the process and load `plugins`. One that ends or blocks the process is left out of a new one."""
        self.limit = limit
        self.failures: dict[Plugin, str] = {}
        """Why plugins can not be used."""
        self._order: dict[str, list[Plugin]] = {}
        self.plugins: list[Plugin] = []
        self._descriptors: list[int] = []
        self._process: _Process | None = None
        left = self._opened(plugins)
        while left and not self._process:
            left = self._load(left)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.end()
            self._process = None
        # Only now: a process that has to be started again runs the same open files.
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _opened(self, plugins: Sequence[Plugin]) -> list[Plugin]:
        """Return the plugins that can be loaded, those that are files with the open file."""
        found = []
        for plugin in plugins:
            try:
                descriptor = None if plugin.file is None else opened(plugin.file)
            except (PluginError, OSError) as error:
                self.failures[plugin] = str(error)
                continue
            if descriptor is not None:
                self._descriptors.append(descriptor)
            found.append(replace(plugin, descriptor=descriptor))
        return found

    def implementing(self, hook: str) -> list[Plugin]:
        """Return the plugins that have `hook`, in the order in which they are called."""
        return self._order.get(hook, [])

    def call(self, plugin: Plugin, hook: str, arguments: Mapping[str, object]) -> Answer:
        """Call one hook of one plugin."""
        return self.ask(plugin, do="call", hook=hook, arguments=arguments)

    def ask(self, plugin: Plugin, **request: object) -> Answer:
        """Send a request about one plugin and return the answer."""
        if plugin in self.failures or not self._process:
            return Answer(failure=self.failures.get(plugin, "its process has ended"))
        try:
            self._process.send({"plugin": self.plugins.index(plugin), "limit": self.limit, **request})
            found = self._process.receive(self.limit + _SPARE)
        except _EndedError as error:
            # It is the process itself, not the child for this call: threads of some plugin may have done anything.
            self._process.end()
            self._process = None
            self._load([one for one in self.plugins if one not in self.failures])
            return Answer(failure=f"ended {error}")
        for name, level, text in found.get("logged", ()):
            logging.getLogger(name).log(level, "%s", text)
        if "ended" in found:
            return Answer(failure=f"ended {found['ended']}")
        return Answer(found.get("returned"), found.get("raised"), found.get("refused", False), found.get("where", ""))

    def _load(self, plugins: list[Plugin]) -> list[Plugin]:
        """Start a process with `plugins`; return those to try again with if one of them has ended it."""
        process, loading = _Process(plugins), None
        try:
            while "ready" not in (message := process.receive(self.limit)):
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
    """The other process, and the pipes to and from it."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        # -P: the current folder is often a repository, and must not be a place to import from.
        # A session of its own: Ctrl-C on a terminal interrupts the command, which then ends this process.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "backy.plugins.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[plugin.descriptor for plugin in plugins if plugin.descriptor is not None],
        )
        self._received = b""
        described = [
            {
                "kind": plugin.kind.name,
                "name": plugin.name,
                "value": plugin.entry_point.value,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "descriptor": plugin.descriptor,
            }
            for plugin in plugins
        ]
        level = logging.getLogger().getEffectiveLevel()
        self.send({"level": level, "path": sys.path, "plugins": described})

    def send(self, message: Mapping[str, object]) -> None:
        """Send a message. If the process has ended, the answer will tell."""
        pipe = self._process.stdin
        with suppress(BrokenPipeError):
            pipe.write(msgspec.json.encode(message, enc_hook=_plain) + b"\n")  # type: ignore[union-attr]  # it is a pipe
            pipe.flush()  # type: ignore[union-attr]  # likewise

    def receive(self, limit: float) -> dict[str, Any]:
        """Return the next message.

        Raises:
            _EndedError: the process has ended, or sent none within `limit` seconds.
        """
        end = time.monotonic() + limit
        descriptor = self._process.stdout.fileno()  # type: ignore[union-attr]  # it is a pipe
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self._received:
            if not poll.poll(max(end - time.monotonic(), 0) * 1000):
                raise _EndedError(f"after {limit:g} seconds, its limit")
            part = os.read(descriptor, 65536)
            if not part:
                code = self._process.wait()
                raise _EndedError(f"with exit code {code}" if code >= 0 else f"by signal {-code}")
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = msgspec.json.decode(line)
        return found

    def end(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
        # At the end of its input it kills what it has started. A thread of a plugin could keep it from ending, though.
        try:
            self._process.wait(_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]  # it is a pipe


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError
