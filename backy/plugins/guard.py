"""Stands between the core and what a plugin makes, so that every fault of the plugin is told as such, in one line.

A guard has the members of the object behind it. A member may raise a `BackyError`, which is meant for users, and return
what its annotation in the contract says. Anything else becomes an error that names the plugin, the call and the cause.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, is_dataclass
from functools import cache, lru_cache, partial
from types import NoneType
from typing import Any, Literal, NoReturn, Protocol, Self, get_args, get_origin, get_type_hints

from backy import api, hookspecs
from backy.errors import BackyError
from backy.plugins.broken import BrokenPluginError, PluginSystemError, described, system_error
from backy.plugins.discovery import Plugin

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Call:
    """A call of a plugin, or a look at an attribute, for errors to name. Use it as a context around the plugin's code.

    What is raised in the context becomes the error for it. Errors that are meant for users stay as they are.
    """

    plugin: Plugin
    name: str
    arguments: tuple[Any, ...] | None = None
    """What it is called with; None for an attribute."""
    own: BaseException | None = None
    """What the core raised when the plugin called it back. This is no fault of the plugin either."""

    def __str__(self) -> str:
        return self.name if self.arguments is None else f"{self.name}({', '.join(map(_shown, self.arguments))})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is self.own or isinstance(error, BackyError) or not isinstance(error, Exception | SystemExit):
            return
        if isinstance(error, OSError):
            fault = PluginSystemError(f"{self.plugin} failed in {self}: {system_error(error)}")
            # For those who tell a full disk from what is broken.
            fault.errno = error.errno
            raise fault from error
        raise BrokenPluginError(self.plugin, f"{self} failed with {described(error)}") from error

    def wrong(self, value: object, why: str) -> NoReturn:
        """Raise the error for a result that is not what the contract says."""
        # Without its content, which may be a guest's.
        kind = repr(value) if value is None or isinstance(value, int) else type(value).__name__
        raise BrokenPluginError(self.plugin, f"{self} returned {kind}{why}")


def made(plugin: Plugin, factory: str, value: object) -> Any:  # noqa: ANN401  # the factory says what it is
    """Return what a factory of `plugin` has made, guarded; what backy's own plugins make stays as it is.

    Raises:
        BrokenPluginError: it is not what the factory has to make.
    """
    # A fault of the plugins that come along is backy's own, and they need no second look at each call.
    return value if plugin.core else _checked(Call(plugin, f"hook {factory}"), _result(vars(hookspecs)[factory]), value)


@cache
def _result(function: Callable[..., Any] | None) -> Any:  # noqa: ANN401  # any annotation
    """Return the annotation of what a function of the contract returns."""
    # What a function that the contract does not have returns is not looked at, as if it were nothing.
    return get_type_hints(function)["return"] if function else NoneType


def _checked(call: Call, wanted: Any, value: Any) -> Any:  # noqa: ANN401  # this is where it is checked
    """Return the result of a call if it is what the annotation `wanted` says; behind a guard if it has methods."""
    kind, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if NoneType in arguments:
        return None if value is None else _checked(call, arguments[0], value)
    if kind is not Literal and Protocol in kind.__mro__:
        return _guarded(call, kind, value)
    if not _fits(kind, arguments, value):
        words = {Literal: f"one of {', '.join(map(str, arguments))}", int: "a number of 0 or more"}
        call.wrong(value, f" instead of {words.get(kind, kind.__name__)}")
    if kind is AbstractContextManager:
        return _entered(call, arguments[0], value)
    if kind is Iterable:
        return _extents(call, value)
    # of a record, its fields
    for name, one in (get_type_hints(kind) if is_dataclass(kind) else {}).items():
        _checked(Call(call.plugin, f"{call}.{name}"), one, getattr(value, name))
    return value


def _fits(kind: Any, arguments: tuple[Any, ...], value: object) -> bool:  # noqa: ANN401  # any part of an annotation
    if kind is Literal:
        return value in arguments
    if kind is int:
        # True is an int to Python, and never what is meant.
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind is Sequence:
        # Text is a sequence of texts, too: each letter would be one.
        return isinstance(value, list | tuple) and all(isinstance(one, arguments[0]) for one in value)
    # Nobody looks at what is returned in place of nothing.
    return kind is NoneType or isinstance(value, kind)


def _extents(call: Call, extents: Iterable[Any]) -> Iterator[api.Extent]:
    with call:
        for extent in extents:
            # Where it ends is a whole number only if the rest is.
            if not (isinstance(extent, api.Extent) and isinstance(extent.end, int)):
                call.wrong(extent, " instead of an Extent of whole numbers")
            yield extent


@contextmanager
def _entered(call: Call, wanted: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401  # `_checked` has looked at it
    """Enter a context of a plugin. It never swallows an exception of its body, which is the core's."""

    def leave(kind: object, error: BaseException | None, trace: object) -> None:
        try:
            with Call(call.plugin, f"leaving {call}"):
                context.__exit__(kind, error, trace)
        except (BackyError, PluginSystemError) as fault:
            if error is None:
                raise
            # The exception of the body is the one that says why the command fails; it may be raised again here.
            if error not in (fault, fault.__cause__):
                log.warning("%s", fault)

    with call:
        entered = context.__enter__()
    with ExitStack() as stack:
        stack.push(leave)
        yield _checked(call, wanted, entered)


@dataclass(slots=True, eq=False)
class _Guard:
    """Base of the guards; `_class` adds the members."""

    _plugin: Plugin
    _guarded: Any


def _guarded(call: Call, protocol: type, value: object) -> _Guard:
    """Return a guard of what a call has returned."""
    with call:
        names = {*dir(value)}
    names.update(name for name in _members(protocol).keys() - names if _makes(value, name))
    for name in sorted(_members(protocol).keys() - names):
        if hasattr(protocol, name):
            call.wrong(value, f", which has no '{name}'")
    return _class(protocol, frozenset(names))(call.plugin, value)


def _makes(value: object, name: str) -> bool:
    """Return whether an object makes a member when it is asked for it, as wrappers around another one do."""
    try:
        return hasattr(value, name)
    except (Exception, SystemExit):  # noqa: BLE001  # the call itself will tell what is wrong
        return True


@cache
def _members(protocol: type) -> Mapping[str, Any]:
    """Return the members that objects of a protocol have or may have, as the contract defines them."""
    # Optional members are those of protocols that are named after it, such as `KeepingSource` after `Source`.
    related = [one for name, one in vars(api).items() if name.endswith(protocol.__name__)]
    return {name: getattr(one, name) for one in related for name in dir(one) if not name.startswith("_")}


# Made once for all objects of a kind: a scheduler makes the sources of ten thousand jobs to check them.
@lru_cache(maxsize=64)
def _class(protocol: type, names: frozenset[str]) -> type[_Guard]:
    # `isinstance` sees such members, unlike those of `__getattr__`. The ones that the contract does not have are there,
    # too: who asks for them knows what they are.
    members = {name: _member(name, _members(protocol).get(name)) for name in names if not name.startswith("_")}
    return type(protocol.__name__, (_Guard,), {"__slots__": (), **members})


def _member(name: str, member: Any) -> property:  # noqa: ANN401  # as the protocol has it
    """Return a member of a guard. `member` is that of the contract; None if it has none of that name."""

    def look(self: _Guard) -> Any:  # noqa: ANN401  # likewise
        with Call(self._plugin, name) as call:
            found = getattr(self._guarded, name)
        if isinstance(member, property):
            return _checked(call, _result(member.fget), found)
        return partial(_run, self._plugin, name, member, found) if member or callable(found) else found

    return property(look)


def _run(plugin: Plugin, name: str, member: Any, function: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # ditto
    """Call a method of a plugin's object; `member` is that of the contract."""
    with Call(plugin, name, (*arguments, *named.values())) as call:
        returned = function(*(_lent(call, one) for one in arguments), **named)
    returned = _checked(call, _result(member), returned)
    # What no annotation tells.
    if member is api.Image.pread and len(returned) != arguments[1]:
        call.wrong(returned, f", {len(returned)} of {arguments[1]}; did the source shrink meanwhile?")
    if member is api.ImageWriter.write and returned > len(arguments[2]):
        call.wrong(returned, f" instead of at most the {len(arguments[2])} bytes that it was given")
    if member is api.Verifier.verify:
        total, found = api.chunk_count(arguments[0].size), returned.compared
        if len(set(found)) < len(found) or not all(isinstance(one, int) and 0 <= one < total for one in found):
            call.wrong(len(found), f" chunks as compared: not each once, or not of the {total} that there are")
    return returned


def _lent(call: Call, argument: Any) -> Any:  # noqa: ANN401  # any argument of the contract
    """Return what a plugin gets for an argument. What a function of the core raises is not blamed on the plugin."""
    if not callable(argument):
        return argument

    def run(found: object) -> None:
        if not isinstance(found, api.Mismatch | int | bytes):
            raise BrokenPluginError(call.plugin, f"{call} reported {type(found).__name__} instead of a Mismatch")
        try:
            argument(found)
        except BaseException as error:
            call.own = error
            raise

    return run


def _shown(argument: object) -> str:
    """Return an argument for an error: numbers and names as they are, of everything else the type."""
    return repr(argument) if argument is None or isinstance(argument, int | str) else type(argument).__name__
