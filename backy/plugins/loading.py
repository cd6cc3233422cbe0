"""Loads the plugin that a job names and checks it against the contract, or says which plugins there are.

Of each breach it says how the plugin's author repairs it.
"""

import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Any

import pluggy

from backy import hookspecs
from backy.errors import PluginError
from backy.plugins.broken import BrokenPluginError, blamed
from backy.plugins.discovery import ELSEWHERE, Kind, Plugin, advertised, conflict, contenders, unreadable
from backy.plugins.guard import Call, made
from backy.text.phrases import alternatives, did_you_mean

_HOOKS = {name: function for name, function in vars(hookspecs).items() if name.startswith("backy_")}
ARGUMENTS = {name: tuple(inspect.signature(function).parameters) for name, function in _HOOKS.items()}
"""The arguments of each hook, by its name."""
EVENTS = ARGUMENTS.keys() - {name for kind in Kind for name in kind.factories}
"""The names of the hooks that are no factories."""


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


def breaches(kind: Kind, module: object, manager: pluggy.PluginManager) -> Iterator[str]:
    """Yield how the hooks that `module` registered in `manager` break the contract, the worst first.

    Args:
        kind: What kind of plugin the module has to be.
        module: What the plugin's entry point names.
        manager: A manager without specifications, which has accepted every function that is marked as a hook.
    """
    # The version comes first: under another contract all other findings would mislead.
    major, minor = hookspecs.CONTRACT
    offered = [f"{major}.{number}" for number in range(minor + 1)]
    if (wanted := getattr(module, "BACKY_CONTRACT", offered[0])) not in offered:
        yield f"its BACKY_CONTRACT is {wanted!r}, but this version of backy has {' and '.join(map(repr, offered))}"
    callers = {caller.name: caller for caller in manager.get_hookcallers(module) or []}
    allowed = kind.factories or EVENTS
    for name in sorted(callers):
        # Also hooks that exist: a storage that implements a source's hook would never be asked for it.
        if name not in ARGUMENTS:
            yield f"implements the hook {name}, which does not exist; {alternatives(name, sorted(allowed))}"
        elif name not in allowed:
            yield f"implements the hook {name}, which is not one of a {kind.word}"
        else:
            yield from _wrong_signatures(name, callers[name].get_hookimpls())
    for name in kind.required:
        if name not in callers:
            unmarked = "; its function of that name is not marked with @hookimpl" if hasattr(module, name) else ""
            yield f"does not implement the hook {name}{unmarked}"
    if not callers:
        yield "implements no hook; are its functions marked with @hookimpl?"


def _wrong_signatures(name: str, implementations: list[pluggy.HookImpl]) -> Iterator[str]:
    for one in implementations:
        if one.wrapper or one.hookwrapper:
            yield f"implements the hook {name} as a wrapper, but there is nothing that it could wrap"
        # pluggy notices none of this at registration: it drops a default silently and fails at the call for the rest.
        signature = inspect.signature(one.function)
        parameters = signature.parameters.values()
        plain = all(found.default is found.empty and found.kind is not found.KEYWORD_ONLY for found in parameters)
        if not plain or not {*one.argnames} <= {*ARGUMENTS[name]}:
            arguments = ", ".join(ARGUMENTS[name])
            yield f"its hook {name} has the arguments {signature}; it is called with ({arguments}), by position"
