"""Tells event plugins what happens, and asks those that may veto. None of them runs in this process."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Self

from backy.api import Config
from backy.errors import BackyError, PluginError
from backy.plugins.discovery import Kind, Plugin, advertised, contenders, unreadable
from backy.plugins.hosting import LIMIT, Host

log = logging.getLogger(__name__)

Sections = Mapping[str, Config]
"""Each plugin's own section of a configuration, by the plugin's name."""

REQUIRED = "required"
"""Key of a plugin's section, for backy itself: whether a backup fails if the plugin's veto can not be asked for."""

HEEDLESS = r"; nothing (?:depends on it|waits for its \w+)$"
"""Pattern of the end of what is logged of a plugin whose failure changes nothing; the scheduler looks for it."""


class RefusedError(BackyError):
    """A plugin refuses what was to happen; the text has its reason."""


_Failure = tuple[str, str, str | None]
"""The name of a plugin that failed, the text for the log, and what it says to users if it raised a BackyError."""


class Events:
    """The event plugins of one command. Use it as a context around all locks: observers are told at its end."""

    def __init__(self, plugins: Sequence[Plugin] = (), sections: Sections | None = None, limit: float = LIMIT) -> None:
        """Take the plugins to call; none of them is loaded yet.

        Args:
            plugins: The event plugins.
            sections: The section `hooks` of a configuration.
            limit: Seconds that a call may take.
        """
        self._plugins = plugins
        self._sections = sections or {}
        self._limit = limit
        self._told: list[tuple[str, Mapping[str, object]]] = []
        self.failures: list[str] = []
        """What observers failed in that were told."""
        self._hosts: list[Host] = []

    @classmethod
    def installed(cls, sections: Sections | None = None, limit: float = LIMIT) -> Self:
        """Return all event plugins that are installed and not switched off."""
        for line in unreadable():
            log.warning("%s; a hook plugin in it is not called", line)
        plugins = [plugin for claims in advertised(Kind.HOOK).values() for plugin in contenders(claims)]
        return cls(plugins, sections, limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            # Only now, when no lock is held any more: a hook may take its time, and may call backy itself.
            while self._told:
                for _, text, _ in self._failures(*self._told.pop(0)):
                    self.failures.append(text)
                    log.warning("%s; nothing depends on it", text)
        finally:
            # after an interrupt, what has not been told yet is dropped
            self._told.clear()
            while self._hosts:
                self._hosts.pop().close()

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
        for name, text, refusal in chain(self._unusable(), self._failures(hook, arguments)):
            if refusal is not None:
                raise RefusedError(f"hook '{name}' refuses: {refusal}")
            if closed or self._sections.get(name, {}).get(REQUIRED):
                raise PluginError(f"{text}; so it counts as if it refused")
            log.warning("%s; nothing waits for its %s", text, hook)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the sections of plugins: a plugin's name and the problem."""
        if self._sections:
            for name, text, refusal in chain(self._unusable(), self._failures("backy_hook_config", {})):
                if name in self._sections:
                    yield name, text if refusal is None else refusal

    def having(self, hook: str) -> list[Host]:
        """Return the plugins that have `hook`, in the order in which they are called."""
        return sorted((host for host in self._loaded() if hook in host.hooks), key=lambda host: host.hooks[hook])

    def _loaded(self) -> list[Host]:
        """Return all plugins, which are loaded when the first one is needed."""
        if not self._hosts:
            self._hosts = [Host(plugin, self._limit) for plugin in self._plugins]
            for host in self._hosts:
                host.load()
                if host.failure:
                    log.warning("%s is broken: %s", host.plugin, host.failure)
        return self._hosts

    def _unusable(self) -> Iterator[_Failure]:
        """Yield the plugins that can not be asked, each with the cause."""
        for host in self._loaded():
            if host.failure:
                yield host.plugin.name, f"{host.plugin} is broken: {host.failure}", None
        for name in sorted(self._sections.keys() - {plugin.name for plugin in self._plugins}):
            yield name, f"no hook '{name}' is installed, but 'hooks' has a section for it", None

    def _failures(self, hook: str, arguments: Mapping[str, object]) -> Iterator[_Failure]:
        """Call the plugins that have `hook`, one after the other, and yield those whose call did not return."""
        for host in self.having(hook):
            name = host.plugin.name
            section = {key: value for key, value in self._sections.get(name, {}).items() if key != REQUIRED}
            answer = host.ask(hook, {**arguments, "config": section})
            if answer.failure is not None:
                text = f"hook '{name}' failed in {hook}: {answer.failure}"
                yield name, text, answer.failure if answer.refused else None
