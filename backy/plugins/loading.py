"""Loading the one plugin that a job names, and refusing what does not keep the contract."""

from __future__ import annotations

import difflib
import inspect
import os
import sys
from collections.abc import Iterable
from typing import Any

import pluggy

from backy.errors import PluginError
from backy.plugins.discovery import Kind, Plugin, advertised

KINDS_WITH_HOOKS = (Kind.SOURCE, Kind.STORAGE, Kind.VERIFIER)


def load(kind: Kind, name: str) -> pluggy.PluginManager:
    """Load plugin `name` of `kind` into a manager of its own, in which it alone answers.

    Raises:
        PluginError: there is no such plugin, two distributions claim the name, or it is broken.
    """
    return managed(chosen(kind, name))


def chosen(kind: Kind, name: str) -> Plugin:
    """Find the one plugin that `name` stands for, without importing it.

    Raises:
        PluginError: as for `load`.
    """
    plugins = advertised(kind)
    candidates = [plugin for plugin in plugins.get(name, []) if not plugin.disabled]
    if len(candidates) > 1:
        raise PluginError(conflict(candidates))
    if not candidates:
        raise PluginError(_unknown(kind, name, plugins))
    return candidates[0]


def conflict(candidates: Iterable[Plugin]) -> str:
    """Say that several distributions claim one name."""
    claims = list(candidates)
    origins = " and ".join(plugin.origin for plugin in claims)
    return f"{claims[0].kind.word} '{claims[0].name}' is claimed by {origins}; uninstall all but one"


def managed(plugin: Plugin) -> pluggy.PluginManager:
    """Import `plugin` and register it in a manager of its own, checking that it keeps the contract.

    Raises:
        PluginError: it can not be imported, or its hooks are not those of its kind.
    """
    from backy import hookspecs

    manager = pluggy.PluginManager("backy")
    manager.add_hookspecs(hookspecs)
    module = imported(plugin)
    try:
        manager.register(module, plugin.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise _broken(plugin, " ".join(str(error).split())) from error
    _check_hooks(plugin, manager, module)
    if os.environ.get("BACKY_TRACE_PLUGINS") == "1":
        manager.trace.root.setwriter(sys.stderr.write)
        manager.enable_tracing()
    return manager


def imported(plugin: Plugin) -> Any:  # noqa: ANN401  # an entry point may name anything
    """Import what the entry point of `plugin` names.

    Raises:
        PluginError: importing it failed; the text says how.
    """
    from stevedore.named import NamedExtensionManager

    failures: list[BaseException] = []
    try:
        extensions: Iterable[Any] = NamedExtensionManager(
            plugin.kind.group,
            [plugin.name],
            on_load_failure_callback=lambda _manager, _entry_point, error: failures.append(error),
            on_missing_entrypoints_callback=lambda _names: None,
        )
    except (AssertionError, SystemExit) as error:  # stevedore lets these through: they would end a daemon
        raise _broken(plugin, f"{type(error).__name__}: {error}") from error
    for extension in extensions:
        if extension.entry_point.value == plugin.entry_point.value:
            return extension.plugin
    if failures:
        raise _broken(plugin, f"{type(failures[0]).__name__}: {failures[0]}") from failures[0]
    raise _broken(plugin, "its entry point vanished while it was loaded; try again")


def _check_hooks(plugin: Plugin, manager: pluggy.PluginManager, module: object) -> None:
    """Refuse missing hooks, hooks of another kind, and arguments that pluggy would silently leave at their default."""
    implemented = {caller.name for caller in manager.get_hookcallers(module) or []}
    if missing := [name for name in plugin.kind.required if name not in implemented]:
        raise _broken(plugin, f"does not implement the hook {missing[0]}")
    if foreign := sorted(implemented - _allowed(plugin.kind, manager)):
        raise _broken(plugin, f"implements the hook {foreign[0]}, which is not one of a {plugin.kind.word}")
    for name in sorted(implemented):
        function = getattr(module, name)
        for argument in inspect.signature(function).parameters.values():
            if argument.default is not argument.empty:
                raise _broken(
                    plugin,
                    f"hook {name} gives its argument '{argument.name}' a default, but hooks are called "
                    "with the arguments of their specification only",
                )


def _allowed(kind: Kind, manager: pluggy.PluginManager) -> set[str]:
    """Return the hooks that a plugin of `kind` may implement."""
    if kind in KINDS_WITH_HOOKS:
        return set(kind.required)
    taken = {name for other in KINDS_WITH_HOOKS for name in other.required}
    return {name for name in vars(manager.hook) if not name.startswith("_")} - taken


def _broken(plugin: Plugin, cause: str) -> PluginError:
    return PluginError(f"{plugin.kind.word} '{plugin.name}' of {plugin.origin} is broken: {cause}")


def _unknown(kind: Kind, name: str, plugins: dict[str, list[Plugin]]) -> str:
    """Say what there is instead of `name`: near misses, what is installed, what failed and why."""
    enabled = {other: found for other, found in plugins.items() if any(not plugin.disabled for plugin in found)}
    text = f"no {kind.word} '{name}'"
    if name in plugins:
        text += "; it is switched off by BACKY_PLUGINS or BACKY_DISABLED_PLUGINS"
    if near := difflib.get_close_matches(name, enabled, n=1):
        text += f"; did you mean '{near[0]}'?"
    if not enabled:
        return f"{text}; no {kind.word} is installed{install_hint(kind)}"
    failed = {other: cause for other, found in enabled.items() if (cause := failure(found))}
    text += f"; installed: {', '.join(other for other in enabled if other not in failed) or 'none'}"
    if failed:
        text += "; failed: " + ", ".join(f"{other} ({cause})" for other, cause in failed.items())
    return text


def install_hint(kind: Kind) -> str:
    """Name the package to install where a freshly installed core finds no source."""
    return ": install backy-sources-file for image files and block devices" if kind is Kind.SOURCE else ""


def failure(plugins: Iterable[Plugin]) -> str | None:
    """Load what claims one name and return why that does not work, None where it does."""
    candidates = [plugin for plugin in plugins if not plugin.disabled]
    if len(candidates) > 1:
        return conflict(candidates)
    try:
        for plugin in candidates:
            if plugin.kind is Kind.COMMAND:
                imported(plugin)
            else:
                managed(plugin)
    except PluginError as error:
        return str(error)
    return None
