"""Checks whether the plugins that the configuration names can be loaded and accept their sections."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pluggy

from backy.api import Job
from backy.errors import BackyError, PluginError
from backy.plugins.discovery import Kind, Plugin
from backy.plugins.events import Events
from backy.plugins.loading import chosen, invoke, managed
from backy.scheduler.configuration.configuration import Examined, Problem, Written


def plugin_problems(found: Examined) -> Iterator[Problem]:
    """Yield the problems of all sections of plugins, in their order, and then those of event plugins."""
    # Also a failure is remembered: thousands of jobs may name the same broken plugin.
    loaded = cache(_loaded)
    for written in found.sections():
        plugin = loaded(written.kind, written.section.type)
        for text in [str(plugin)] if isinstance(plugin, PluginError) else _mistakes(*plugin, written, found):
            yield Problem(written.line, ".".join(written.key), text)
    with Events.installed(found.configuration.hooks) as events:
        for name, text in events.problems():
            yield Problem(found.document.line(("hooks", name)), f"hooks.{name}", text)


def _loaded(kind: Kind, name: str) -> tuple[Plugin, pluggy.PluginManager] | PluginError:
    try:
        plugin = chosen(kind, name)
        return plugin, managed(plugin)
    except PluginError as error:
        return error


def _mistakes(plugin: Plugin, manager: pluggy.PluginManager, written: Written, found: Examined) -> list[str]:
    """Return what a plugin refuses of its section."""
    name = written.job or "global"
    job = Job(name, name, found.configuration.settings.base_dir / name)
    try:
        # A plugin checks its section when it is made; that touches no source.
        invoke(plugin, manager, f"backy_{written.kind.word}", config=written.section.options, job=job)
    except BackyError as error:
        # `typed` tells all mistakes of a section in one error.
        return str(error).removeprefix("config.").split("; config.")
    return []
