"""Checks a plugin's module against the contract, and says of each breach how its author repairs it."""

import inspect
from collections.abc import Iterator

import pluggy

from backy import hookspecs
from backy.plugins.discovery import Kind
from backy.text.phrases import alternatives

ARGUMENTS = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in vars(hookspecs).items()
    if name.startswith("backy_")
}
"""The arguments of each hook, by its name."""

EVENTS = ARGUMENTS.keys() - {name for kind in Kind for name in kind.factories}
"""The names of the hooks that are no factories."""


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
