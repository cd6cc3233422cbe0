"""Checks a plugin's module against the contract, and says of each breach how its author repairs it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pluggy

from backy import hookspecs
from backy.plugins.broken import BrokenPluginError
from backy.plugins.discovery import Kind, Plugin
from backy.text.phrases import alternatives

KINDS_WITH_FACTORIES = (Kind.SOURCE, Kind.STORAGE, Kind.VERIFIER)
ARGUMENTS = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in vars(hookspecs).items()
    if name.startswith("backy_")
}
"""The arguments of each hook, by its name."""


def check(plugin: Plugin, module: object, manager: pluggy.PluginManager) -> None:
    """Check the hooks that `module` registered in `manager`.

    Args:
        plugin: Names the module in errors.
        module: What the plugin's entry point names.
        manager: A manager without specifications, which has accepted every function that is marked as a hook.

    Raises:
        BrokenPluginError: the module was written for another contract, has a hook that its kind does not have, lacks a
            required one, or asks for arguments that a hook is not given.
    """
    # The version comes first: under another contract all other findings would mislead.
    if cause := _wrong_version(getattr(module, "BACKY_CONTRACT", "1.0")):
        raise BrokenPluginError(plugin, cause)
    callers = {caller.name: caller for caller in manager.get_hookcallers(module) or []}
    allowed = _allowed(plugin.kind)
    for name in sorted(callers):
        # Also hooks that exist: a storage that implements a source's hook would never be asked for it.
        if name not in allowed:
            raise BrokenPluginError(plugin, _not_allowed(plugin.kind, name))
        for implementation in callers[name].get_hookimpls():
            if cause := _wrong_signature(name, implementation):
                raise BrokenPluginError(plugin, cause)
    for name in plugin.kind.required:
        if name not in callers:
            unmarked = "; its function of that name is not marked with @hookimpl" if hasattr(module, name) else ""
            raise BrokenPluginError(plugin, f"does not implement the hook {name}{unmarked}")
    if not callers:
        raise BrokenPluginError(plugin, "implements no hook; are its functions marked with @hookimpl?")


def _wrong_version(wanted: object) -> str | None:
    """Return why this version of backy does not offer the contract `wanted`, or None if it does."""
    numbers = re.fullmatch(r"(\d+)\.(\d+)", wanted) if isinstance(wanted, str) else None
    if numbers is None:
        return f"its BACKY_CONTRACT is {wanted!r}; it should be text like '1.0'"
    major, minor = int(numbers[1]), int(numbers[2])
    known = f"this version of backy has the contract {'.'.join(map(str, hookspecs.CONTRACT))}"
    if major != hookspecs.CONTRACT[0]:
        return f"was written for the contract {wanted}, but {known}"
    # A smaller minor version is fine: minor versions only add to the contract.
    if minor > hookspecs.CONTRACT[1]:
        return f"needs the contract {wanted}, but {known}: install a newer backy"
    return None


def _allowed(kind: Kind) -> set[str]:
    """Return the hooks that a plugin of `kind` may implement."""
    if kind in KINDS_WITH_FACTORIES:
        return set(kind.factories)
    return ARGUMENTS.keys() - {name for other in KINDS_WITH_FACTORIES for name in other.factories}


def _not_allowed(kind: Kind, name: str) -> str:
    if name in ARGUMENTS:
        return f"implements the hook {name}, which is not one of a {kind.word}"
    return f"implements the hook {name}, which does not exist; {alternatives(name, sorted(_allowed(kind)))}"


def _wrong_signature(name: str, implementation: pluggy.HookImpl) -> str | None:
    """Return what is wrong with the signature of one function, or None."""
    # pluggy notices none of this at registration: it drops a default silently and fails at the call for the rest.
    expected = f"its arguments are {', '.join(ARGUMENTS[name])}"
    if implementation.wrapper or implementation.hookwrapper:
        return f"implements the hook {name} as a wrapper, but there is nothing that it could wrap"
    for argument in implementation.argnames:
        if argument not in ARGUMENTS[name]:
            return f"hook {name} asks for an argument '{argument}' that it is not given; {expected}"
    parameters: dict[str, Any] = dict(inspect.signature(implementation.function).parameters)
    for argument, parameter in parameters.items():
        if parameter.default is not parameter.empty:
            return f"hook {name} gives its argument '{argument}' a default, which would never be replaced; {expected}"
        if parameter.kind is parameter.KEYWORD_ONLY:
            return f"hook {name} takes its argument '{argument}' by keyword only, but hooks are called by position"
    return None
