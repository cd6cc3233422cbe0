"""Loads the plugin that a job names, or says which plugins there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from backy import hookspecs
from backy.errors import PluginError
from backy.plugins import tracing
from backy.plugins.broken import BrokenPluginError, described
from backy.plugins.contract import check
from backy.plugins.discovery import Kind, Plugin, advertised, conflict, contenders, unreadable
from backy.plugins.guard import Call
from backy.plugins.importing import imported
from backy.plugins.shapes import made
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
    if result is None:
        raise BrokenPluginError(plugin, f"hook {hook} returned nothing")
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
    if plugin.core:
        return accepted(plugin, imported(plugin))
    # Only now, as stevedore takes long to import.
    from backy.plugins.managers import ChosenPlugin

    return accepted(plugin, ChosenPlugin(plugin).driver)


def accepted(plugin: Plugin, module: object) -> pluggy.PluginManager:
    """Register what the entry point of `plugin` names in a manager of its own, and check it against the contract.

    Raises:
        BrokenPluginError: its hooks are not those of its kind.
    """
    # One manager for all plugins would call each of them for a hook that is meant for one.
    manager = pluggy.PluginManager("backy")
    try:
        manager.register(module, plugin.name)
        # Before the specifications are added, as pluggy would refuse a breach in words that name no remedy.
        check(plugin, module, manager)
        manager.add_hookspecs(hookspecs)
        manager.check_pending()
    except BrokenPluginError:
        raise
    except Exception as error:  # a plugin may be any object: looking at its attributes may do anything
        raise BrokenPluginError(plugin, described(error)) from error
    if tracing.wanted():
        tracing.trace(plugin, manager)
    return manager


def rejected(plugin: Plugin, claims: Iterable[Plugin]) -> str | None:
    """Return why a job can not use `plugin`, as far as that is known without importing it, or None.

    Args:
        plugin: One of `claims`.
        claims: All plugins of its kind and name.
    """
    candidates = contenders(claims)
    if plugin not in candidates:
        return f"backy has a {plugin.kind.word} of that name, which always comes first"
    # Nobody chooses a hook by its name: two of one name both run.
    return conflict(candidates) if len(candidates) > 1 and plugin.kind is not Kind.HOOK else None


def install_hint(kind: Kind) -> str:
    """Return which package to install if no plugin of `kind` is installed, for a text to end with."""
    return "; install backy-sources-file for image files and block devices" if kind is Kind.SOURCE else ""


def _unknown(kind: Kind, name: str, plugins: Mapping[str, list[Plugin]]) -> str:
    """Return a text for an unknown plugin: near misses, the names that are installed, and where to look further."""
    if switches := {plugin.switch for plugin in plugins.get(name, []) if plugin.switch}:
        return f"{kind.word} '{name}' is switched off by {' and '.join(sorted(switches))}"
    text = f"no {kind.word} '{name}'"
    # The likely reason if the plugin was there yesterday.
    lost = "".join(f"; {line}" for line in unreadable())
    if not plugins:
        return f"{text}: no {kind.word} is installed{install_hint(kind)}{lost}"
    # Names only: to import all plugins for a message takes long, and each of them may do anything.
    usable = [name for name, claims in plugins.items() if contenders(claims)]
    disabled = [name for name in plugins if name not in usable]
    off = f"; switched off: {', '.join(disabled)}" if disabled else ""
    installed = f"installed: {', '.join(usable) or 'none'}{off}{lost}"
    return f"{text}; {did_you_mean(name, plugins)}{installed}; 'backy plugins --check' tells which are broken"
