"""Checks whether the plugins that the configuration names can be loaded and accept their sections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pluggy

from backy.api import Job
from backy.errors import BackyError, PluginError
from backy.plugins.discovery import Kind, Plugin
from backy.plugins.events import Events
from backy.plugins.loading import chosen, invoke, managed
from backy.scheduler.configuration.configuration import Examined, Problem, Written


class _Loaded(NamedTuple):
    plugin: Plugin
    manager: pluggy.PluginManager


class PluginCheck:
    """Checks all sections of plugins. Each plugin is loaded once."""

    def __init__(self, found: Examined) -> None:
        self._found = found
        self._loaded: dict[tuple[Kind, str], _Loaded | PluginError] = {}

    def problems(self) -> Iterator[Problem]:
        """Yield the problems of all sections, in their order, and then those of event plugins."""
        for written in self._found.sections():
            for text in self._problems(written):
                yield Problem(written.line, ".".join(written.key), text)
        configuration = self._found.configuration
        with Events.installed(configuration.hooks) as events:
            for name, text in events.problems():
                yield Problem(self._found.document.line(("hooks", name)), f"hooks.{name}", text)

    def _problems(self, written: Written) -> list[str]:
        loaded = self._load(written.kind, written.section.type)
        if isinstance(loaded, PluginError):
            return [str(loaded)]
        name = written.job or "global"
        job = Job(name, name, self._found.configuration.settings.base_dir / name)
        try:
            # A plugin checks its section when it is made; that touches no source.
            invoke(*loaded, f"backy_{written.kind.word}", config=written.section.options, job=job)
        except BackyError as error:
            # `typed` tells all mistakes of a section in one error.
            return str(error).removeprefix("config.").split("; config.")
        return []

    def _load(self, kind: Kind, name: str) -> _Loaded | PluginError:
        # Also a failure is remembered: thousands of jobs may name the same broken plugin.
        if (kind, name) not in self._loaded:
            try:
                plugin = chosen(kind, name)
                self._loaded[kind, name] = _Loaded(plugin, managed(plugin))
            except PluginError as error:
                self._loaded[kind, name] = error
        return self._loaded[kind, name]
