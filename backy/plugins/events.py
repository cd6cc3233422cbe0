"""Tells event plugins what happens, and asks those that may veto. None of them runs in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Self

from backy.api import Config, ConsoleCommand
from backy.errors import BackyError, PluginError
from backy.plugins.discovery import Kind, Plugin, advertised, contenders, unreadable
from backy.plugins.hosting import LIMIT, Answer, Host

log = logging.getLogger(__name__)

REQUIRED = "required"
"""Key of a plugin's section, for backy itself: whether a backup fails if the plugin's veto can not be asked for."""


class RefusedError(BackyError):
    """A plugin refuses what was to happen; the text has its reason."""


class Events:
    """The event plugins of one command. Use it as a context around all locks: observers are told at its end."""

    def __init__(
        self,
        plugins: Sequence[Plugin] = (),
        sections: Mapping[str, Config] | None = None,
        limit: float = LIMIT,
    ) -> None:
        """Take the plugins to call; none of them is loaded yet.

        Args:
            plugins: The event plugins.
            sections: The section `hooks` of a configuration: each plugin's own section by the plugin's name.
            limit: Seconds that a call may take.
        """
        self._plugins = plugins
        self._sections = sections or {}
        self._limit = limit
        self._told: list[tuple[str, Mapping[str, object]]] = []
        self._started: Host | None = None

    @classmethod
    def installed(cls, sections: Mapping[str, Config] | None = None) -> Self:
        """Return all event plugins that are installed and not switched off."""
        for line in unreadable():
            log.warning("%s; a hook plugin in it is not called", line)
        return cls([plugin for claims in advertised(Kind.HOOK).values() for plugin in contenders(claims)], sections)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Only now, when no lock is held any more: a hook may take its time, and may call backy itself.
            while self._told:
                self._send(*self._told.pop(0))
        finally:
            self.close()

    def close(self) -> None:
        """End the process of the plugins. What has not been told yet is dropped."""
        self._told.clear()
        if self._started:
            self._started.close()
            self._started = None

    def tell(self, hook: str, **arguments: object) -> None:
        """Note what happened. Observers are told of it at the end of the context."""
        self._told.append((hook, arguments))

    def ask(self, hook: str, *, closed: bool = False, **arguments: object) -> None:
        """Ask every plugin that has the veto `hook`, until one refuses.

        Args:
            hook: The name of the hook.
            closed: Whether a plugin that can not be asked counts as one that refuses. Otherwise it is logged, unless
                the plugin's section says that it is required.
            arguments: What the plugins are asked about.

        Raises:
            RefusedError: a plugin refuses.
            PluginError: a plugin can not be asked.
        """
        for name, cause in self._unusable():
            self._fail(hook, name, cause, closed=closed)
        for plugin in self._host.implementing(hook):
            answer = self._call(plugin, hook, arguments)
            if answer.refused:
                raise RefusedError(f"hook '{plugin.name}' refuses: {answer.failure}")
            if answer.failure is not None:
                self._fail(hook, plugin.name, _failure(plugin, hook, answer), closed=closed)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the sections of plugins: a plugin's name and the problem."""
        if not self._sections:
            return
        unusable = self._unusable()
        yield from (one for one in unusable if one[0] in self._sections)
        for plugin in self._host.implementing("backy_hook_config"):
            if plugin.name in self._sections:
                answer = self._call(plugin, "backy_hook_config", {})
                if answer.failure is not None:
                    # A refusal is meant for users; anything else is the plugin's fault.
                    failure = _failure(plugin, "backy_hook_config", answer)
                    yield plugin.name, answer.failure if answer.refused else failure

    def console_commands(self) -> dict[str, ConsoleCommand]:
        """Return the console commands of all plugins by name; the first plugin wins a name that two claim.

        Each command runs in a process of its own.
        """
        commands: dict[str, ConsoleCommand] = {}
        for plugin in self._host.implementing("backy_console_commands"):
            answer = self._host.ask(plugin, do="commands")
            if answer.failure is not None:
                log.warning("hook '%s' adds no commands: %s", plugin.name, answer.failure)
                continue
            commands = {one[0]: self._command(plugin, *one) for one in answer.returned} | commands
        return commands

    @property
    def _host(self) -> Host:
        """The process of the plugins, which is started when it is needed for the first time."""
        if self._started is None:
            self._started = Host(self._plugins, self._limit)
            for plugin, cause in self._started.failures.items():
                log.warning("%s is broken: %s", plugin, cause)
        return self._started

    def _unusable(self) -> list[tuple[str, str]]:
        """Return names of plugins that can not be asked, each with the cause."""
        missing = self._sections.keys() - {plugin.name for plugin in self._plugins}
        return [(plugin.name, f"{plugin} is broken: {cause}") for plugin, cause in self._host.failures.items()] + [
            (name, f"no hook '{name}' is installed, but 'hooks' has a section for it") for name in sorted(missing)
        ]

    def _fail(self, hook: str, name: str, cause: str, *, closed: bool) -> None:
        """Deal with a plugin that can not be asked."""
        if closed or self._sections.get(name, {}).get(REQUIRED):
            raise PluginError(f"{cause}; so it counts as if it refused")
        log.warning("%s; nothing waits for its %s", cause, hook)

    def _send(self, hook: str, arguments: Mapping[str, object]) -> None:
        """Tell all observers of an event, one after the other."""
        for plugin in self._host.implementing(hook):
            answer = self._call(plugin, hook, arguments)
            if answer.failure is not None:
                log.warning("%s; nothing depends on it", _failure(plugin, hook, answer))

    def _call(self, plugin: Plugin, hook: str, arguments: Mapping[str, object]) -> Answer:
        section = {key: value for key, value in self._sections.get(plugin.name, {}).items() if key != REQUIRED}
        answer = self._host.ask(plugin, do="call", hook=hook, arguments={**arguments, "config": section})
        if answer.where:
            log.debug("this is where it happened:\n%s", answer.where)
        return answer

    def _command(self, plugin: Plugin, name: str, text: str, changes: bool) -> ConsoleCommand:
        def run(words: Sequence[str]) -> str:
            # A process for each call: a command that never ends must not stand in the way of the next one.
            with closing(Host([plugin], self._limit)) as host:
                answer = host.ask(plugin, do="run", name=name, words=words)
            if answer.failure is not None:
                raise (
                    BackyError(answer.failure) if answer.refused else PluginError(f"{plugin} failed: {answer.failure}")
                )
            return str(answer.returned)

        return ConsoleCommand(name, text, run, changes)


def _failure(plugin: Plugin, hook: str, answer: Answer) -> str:
    return f"hook '{plugin.name}' failed in {hook}: {answer.failure}"
