"""Loads the plugin that a job names, or says which plugins there are."""

import os
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

import pluggy

from backy import hookspecs
from backy.errors import PluginError
from backy.plugins.broken import BrokenPluginError, blamed
from backy.plugins.contract import breaches
from backy.plugins.discovery import ELSEWHERE, Kind, Plugin, advertised, conflict, contenders, unreadable
from backy.plugins.guard import Call, made
from backy.text.phrases import did_you_mean


def call(kind: Kind, name: str, hook: str, **arguments: object) -> Any:  # noqa: ANN401  # the hook says what it is
    """Load plugin `name` of `kind` and return what its factory `hook` makes.

    Raises:
        PluginError: the plugin can not be loaded, lacks the hook, or failed unexpectedly.
        BackyError: the plugin refuses, with a ConfigError above all.
    """
    plugin = chosen(kind, name)
    return invoke(plugin, managed(plugin), hook, **arguments)


def invoke(plugin: Plugin, manager: pluggy.PluginManager, hook: str, **arguments: object) -> Any:  # noqa: ANN401  # ditto
    """Return what the factory `hook` of a loaded plugin makes. Raise the same errors as `call`."""
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    if not caller.get_hookimpls():
        raise PluginError(f"{plugin} does not offer that: it has no hook {hook}")
    with Call(plugin, f"hook {hook}"):
        result = caller(**arguments)
    return made(plugin, hook, result)


def load(kind: Kind, name: str) -> pluggy.PluginManager:
    """Load plugin `name` of `kind` into a manager of its own.

    Raises:
        PluginError: there is no such plugin, two distributions claim the name, or it is broken.
    """
    return managed(chosen(kind, name))


def chosen(kind: Kind, name: str) -> Plugin:
    """Find plugin `name` of `kind` without importing it.

    Raises:
        PluginError: there is no such plugin, or two distributions claim the name.
    """
    plugins = advertised(kind)
    candidates = contenders(plugins.get(name, []))
    if len(candidates) > 1:
        raise PluginError(f"{kind.word} '{name}' is {conflict(candidates)}")
    if not candidates:
        raise PluginError(_unknown(kind, name, plugins))
    return candidates[0]


def managed(plugin: Plugin) -> pluggy.PluginManager:
    """Import `plugin`, register it in a manager of its own and check it against the contract.

    Raises:
        BrokenPluginError: it can not be imported, or its hooks are not those of its kind.
    """
    # Nobody can take the place of backy's own plugins, so that there is nothing to manage: `status` uses no others.
    return accepted(plugin, plugin.load() if plugin.core else _driver(plugin))


def _driver(plugin: Plugin) -> object:
    """Import `plugin` by stevedore. Raise BrokenPluginError if that fails."""
    from stevedore.driver import DriverManager  # only now, as that takes long

    class Chosen(DriverManager[Any]):
        # stevedore itself would read the entry points of all distributions, take outdated ones from a cache, and end
        # with the first distribution that it can not read.
        def list_entry_points(self) -> list[EntryPoint]:
            return [plugin.entry_point]

    with blamed(plugin):
        return Chosen(plugin.kind.group, plugin.name).driver


def accepted(plugin: Plugin, module: object) -> pluggy.PluginManager:
    """Register what the entry point of `plugin` names in a manager of its own, and check it against the contract.

    Raises:
        BrokenPluginError: its hooks are not those of its kind.
    """
    # One manager for all plugins would call each of them for a hook that is meant for one.
    manager = pluggy.PluginManager("backy")
    # A plugin may be any object: looking at its attributes may do anything.
    with blamed(plugin):
        manager.register(module, plugin.name)
        # Before the specifications are added, as pluggy would refuse a breach in words that name no remedy.
        if cause := next(breaches(plugin.kind, module, manager), None):
            raise BrokenPluginError(plugin, cause)
        manager.add_hookspecs(hookspecs)
        manager.check_pending()
    if os.environ.get("BACKY_TRACE_PLUGINS") == "1":
        _trace(plugin, manager)
    return manager


def _trace(plugin: Plugin, manager: pluggy.PluginManager) -> None:
    """Write to standard error now and at every call of `plugin`, for its author."""

    def write(event: str) -> None:
        sys.stderr.write(f"plugin trace: {plugin}: {event}\n")

    def after(outcome: Any, hook: str, *_others: object) -> None:  # noqa: ANN401  # as pluggy calls it
        # The type only: a configuration may hold secrets, and so may what is made of it.
        value = outcome.exception or outcome.get_result()
        write(f"{hook} {'raised' if outcome.exception else 'returned'} {type(value).__name__}")

    write(f"loaded from '{plugin.value}'")
    manager.add_hookcall_monitoring(lambda hook, _, arguments: write(f"{hook}({', '.join(arguments)})"), after)


def install_hint(kind: Kind) -> str:
    """Return which package to install if no plugin of `kind` is installed, for a text to end with."""
    return "; install backy-sources-file for image files and block devices" if kind is Kind.SOURCE else ""


def _unknown(kind: Kind, name: str, plugins: Mapping[str, list[Plugin]]) -> str:
    """Return a text for an unknown plugin: near misses, the names that are installed, and where to look further."""
    if switches := {plugin.switch for plugin in plugins.get(name, []) if plugin.switch}:
        return f"{kind.word} '{name}' is switched off by {' and '.join(sorted(switches))}"
    # The likely reason if the plugin was there yesterday.
    lost = "".join(f"; {line}" for line in unreadable())
    if package := ELSEWHERE.get((kind, name)):
        return f"no {kind.word} '{name}'; install {package}, which has it{lost}"
    if not plugins:
        return f"no {kind.word} '{name}': no {kind.word} is installed{install_hint(kind)}{lost}"
    # Names only: to import all plugins for a message takes long, and each of them may do anything.
    off = {other for other, claims in plugins.items() if not contenders(claims)}
    states = {"installed": [other for other in plugins if other not in off], "switched off": sorted(off)}
    listed = "; ".join(f"{state}: {', '.join(names)}" for state, names in states.items() if names)
    hint = f"{did_you_mean(name, plugins)}{listed}{lost}"
    return f"no {kind.word} '{name}'; {hint}; 'backy plugins --check' tells which are broken"
