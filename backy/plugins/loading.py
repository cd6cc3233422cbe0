"""Loading the one plugin that a job names, and saying what there is if that does not work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from backy import hookspecs
from backy.errors import BackyError, PluginError
from backy.plugins import tracing
from backy.plugins.broken import BrokenPluginError, described
from backy.plugins.contract import check
from backy.plugins.discovery import Kind, Plugin, advertised, conflict, contenders
from backy.plugins.importing import imported, imported_command
from backy.text.phrases import did_you_mean


def call(kind: Kind, name: str, hook: str, **arguments: object) -> Any:  # noqa: ANN401  # the hook says what it is
    """Load plugin `name` of `kind` and let it make what its factory `hook` makes.

    Raises:
        PluginError: it can not be loaded, lacks the hook, or failed in a way that is not its user's fault.
        BackyError: whatever the plugin says, a ConfigError above all.
    """
    plugin = chosen(kind, name)
    return invoke(plugin, managed(plugin), hook, **arguments)


def invoke(plugin: Plugin, manager: pluggy.PluginManager, hook: str, **arguments: object) -> Any:  # noqa: ANN401  # ditto
    """Let a plugin that is loaded make what its factory `hook` makes; raises what `call` raises."""
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    if not caller.get_hookimpls():
        raise PluginError(f"{plugin} does not offer that: it has no hook {hook}")
    try:
        result = caller(**arguments)
    except BackyError:
        raise
    except Exception as error:
        raise BrokenPluginError(plugin, f"hook {hook} failed with {described(error)}") from error
    if result is None:
        raise BrokenPluginError(plugin, f"hook {hook} returned nothing")
    return result


def load(kind: Kind, name: str) -> pluggy.PluginManager:
    """Load plugin `name` of `kind` into a manager of its own, in which it alone answers.

    Raises:
        PluginError: there is no such plugin, two distributions claim the name, or it is broken.
    """
    return managed(chosen(kind, name))


def chosen(kind: Kind, name: str) -> Plugin:
    """Find the one plugin that `name` stands for, without importing it.

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
    """Import `plugin` and register it in a manager of its own, checking that it keeps the contract.

    Raises:
        BrokenPluginError: it can not be imported, or its hooks are not those of its kind.
    """
    module = imported(plugin)
    manager = pluggy.PluginManager("backy")
    try:
        manager.register(module, plugin.name)
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


def trouble(plugin: Plugin, claims: Iterable[Plugin]) -> str | None:
    """Load `plugin`, one of `claims` to its name, and return why a job can not use it, or None where it can."""
    candidates = contenders(claims)
    if plugin not in candidates:
        return "backy has a command of that name, which always comes first"
    if len(candidates) > 1:
        return conflict(candidates)
    try:
        if plugin.kind is Kind.COMMAND:
            imported_command(plugin)
        else:
            managed(plugin)
    except BrokenPluginError as error:
        return error.cause
    return None


def install_hint(kind: Kind) -> str:
    """Name the package to install where a freshly installed core finds no source."""
    return "; install backy-sources-file for image files and block devices" if kind is Kind.SOURCE else ""


def _unknown(kind: Kind, name: str, plugins: Mapping[str, list[Plugin]]) -> str:
    """Say what there is instead of `name`: near misses, what is installed, what failed and why."""
    if switches := {plugin.switch for plugin in plugins.get(name, []) if plugin.switch}:
        return f"{kind.word} '{name}' is switched off by {' and '.join(sorted(switches))}"
    text = f"no {kind.word} '{name}'"
    if not plugins:
        return f"{text}: no {kind.word} is installed{install_hint(kind)}"
    return f"{text}; {did_you_mean(name, plugins)}{_inventory(plugins)}"


def _inventory(plugins: Mapping[str, list[Plugin]]) -> str:
    """List the plugins of a kind by how they are."""
    sound, failed, disabled = [], [], []
    for name, claims in plugins.items():
        candidates = contenders(claims)
        if not candidates:
            disabled.append(name)
        elif cause := trouble(candidates[0], claims):
            failed.append(f"{name} ({cause})")
        else:
            sound.append(name)
    text = f"installed: {', '.join(sound) or 'none'}"
    text += f"; failed: {', '.join(failed)}" if failed else ""
    return text + (f"; switched off: {', '.join(disabled)}" if disabled else "")
