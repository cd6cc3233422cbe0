"""Stands between the core and what a plugin makes, so that every fault of the plugin is told as such, in one line.

A guard has the members of the object behind it. What a member raises or returns against the contract becomes an error
that names the plugin, the call and the cause; a `BackyError` passes, as it is meant for users.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

from backy.errors import BackyError
from backy.plugins.broken import BrokenPluginError, PluginSystemError, described
from backy.plugins.discovery import Plugin

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a plugin, or a look at an attribute, for errors to name. Use it as a context around the plugin's code.

    What is raised in the context becomes the error for it. Errors that are meant for users stay as they are.
    """

    plugin: Plugin
    name: str
    arguments: tuple[Any, ...] | None = None
    """What it is called with; None for an attribute."""

    def __str__(self) -> str:
        if self.arguments is None:
            return self.name
        return f"{self.name}({', '.join(map(_shown, self.arguments))})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BackyError) or not isinstance(error, Exception | SystemExit):
            return
        if isinstance(error, OSError):
            raise PluginSystemError(self.plugin, str(self), error) from error
        raise BrokenPluginError(self.plugin, f"{self} failed with {described(error)}") from error

    def returned(self, value: object, wanted: str) -> NoReturn:
        """Raise the error for a result that is not what was `wanted`."""
        raise BrokenPluginError(self.plugin, f"{self} returned {kind_of(value)} instead of {wanted}")


Check = Callable[[Call, Any], Any]
"""Returns what the core gets for the result of a call; a wrong one raises BrokenPluginError."""


def anything(_call: Call, value: Any) -> Any:  # noqa: ANN401  # it is not looked at
    """Return a result as it is."""
    return value


@dataclass(frozen=True, eq=False)
class Shape:
    """The members of a protocol, each with the check of what it returns."""

    attributes: Mapping[str, Check]
    methods: Mapping[str, Check]
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """The methods that take more than a check of their result; they are called with the guard."""
    optional: frozenset[str] = frozenset()
    """The members that an object need not have."""


def guarded(call: Call, shape: Shape, value: object) -> Any:  # noqa: ANN401  # the shape says what it is
    """Return a guard of what `call` returned.

    Raises:
        BrokenPluginError: it lacks a member of `shape`.
    """
    known = shape.attributes.keys() | shape.methods.keys() | shape.functions.keys()
    present = {name for name in known if has(value, name)}
    for name in sorted(known - present - shape.optional):
        raise BrokenPluginError(call.plugin, f"{call} returned {kind_of(value)}, which has no '{name}'")
    # Members of optional protocols that no shape has must be seen by `isinstance`, too.
    others = {name for name in dir(value) if not name.startswith("_")} - known
    guard: type[Guard] = _class(shape, frozenset(present | others))
    return guard(call.plugin, value)


class Guard:
    """Base of the guards; `_class` adds the members."""

    __slots__ = ("_guarded", "_plugin")

    def __init__(self, plugin: Plugin, value: Any) -> None:  # noqa: ANN401  # `guarded` has looked at it
        self._plugin = plugin
        self._guarded = value


# Made once for all objects of a kind: a scheduler makes the sources of ten thousand jobs to check them.
@lru_cache(maxsize=64)
def _class(shape: Shape, names: frozenset[str]) -> type[Guard]:
    members = {name: shape.functions.get(name) or _member(shape, name) for name in names}
    return type("Guarded", (Guard,), {"__slots__": (), **members})


def _member(shape: Shape, name: str) -> property:
    def member(self: Guard) -> Any:  # noqa: ANN401  # as the protocol has it
        with Call(self._plugin, name) as call:
            found = getattr(self._guarded, name)
        if name in shape.attributes:
            return shape.attributes[name](call, found)
        # What a member that no shape has returns can not be checked, but what it raises is the plugin's.
        if name not in shape.methods and not callable(found):
            return found

        def method(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # likewise
            with Call(self._plugin, name, (*arguments, *named.values())) as call:
                returned = found(*arguments, **named)
            return shape.methods.get(name, anything)(call, returned)

        return method

    return property(member)


class GuardedContext:
    """A context of a plugin. It never swallows an exception of its body, which is the core's."""

    def __init__(self, call: Call, context: Any, shape: Shape) -> None:  # noqa: ANN401  # it is checked by `context`
        self._call = call
        self._context = context
        self._shape = shape

    def __enter__(self) -> Any:  # noqa: ANN401  # the shape says what it is
        with self._call:
            entered = self._context.__enter__()
        try:
            return guarded(self._call, self._shape, entered)
        except BrokenPluginError:
            self.__exit__(*sys.exc_info())
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        try:
            with Call(self._call.plugin, f"leaving {self._call}"):
                self._context.__exit__(kind, error, trace)
        except (BackyError, PluginSystemError) as fault:
            if error is None:
                raise
            # The exception of the body is the one that says why the command fails; it may be raised again here.
            if error not in (fault, fault.__cause__):
                log.warning("%s", fault)
        return False


def context(shape: Shape) -> Check:
    """Return the check of a context manager whose `with` gives a `shape`."""

    def check(call: Call, value: Any) -> GuardedContext:  # noqa: ANN401  # this is where it is checked
        if not (has(value, "__enter__") and has(value, "__exit__")):
            call.returned(value, "a context manager")
        return GuardedContext(call, value, shape)

    return check


def kind_of(value: object) -> str:
    """Return what a wrong value is, in few words and without its content, which may be a guest's."""
    if value is None:
        return "None"
    return repr(value) if isinstance(value, int) else type(value).__name__


def has(value: object, name: str) -> bool:
    """Return whether an object has a member, without running the code of a property."""
    try:
        inspect.getattr_static(value, name)
    except AttributeError:
        # An object may make its members when they are asked for, as wrappers around another one do.
        try:
            return hasattr(value, name)
        except (Exception, SystemExit):  # noqa: BLE001  # the call itself will tell what is wrong
            return True
    return True


def _shown(argument: object) -> str:
    """Return an argument for an error: numbers and names as they are, of everything else the type."""
    return repr(argument) if argument is None or isinstance(argument, int | str) else type(argument).__name__
