"""The protocols of the contract as guards check them: what each member has to return, by its annotation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import is_dataclass
from functools import cache
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from backy import api
from backy.errors import PluginError
from backy.plugins.broken import BrokenPluginError
from backy.plugins.discovery import Plugin
from backy.plugins.guard import Call, Check, Guard, Shape, anything, context, guarded
from backy.text.phrases import counted

_OPTIONAL: Final[dict[type, tuple[type, ...]]] = {
    api.Snapshot: (api.FreezingSnapshot,),
    api.Source: (api.KeepingSource,),
    api.Storage: (
        api.ChoosyStorage,
        api.DisposableStorage,
        api.ExplainedStorage,
        api.ListedStorage,
        api.ParallelStorage,
        api.RecordKeepingStorage,
    ),
}
"""The protocols whose members an object may have besides those of its own protocol."""

_WANTED: Final = {bool: "True or False", int: "a number of bytes", str: "text", Mapping: "keys and values"}
"""What errors call a type."""


def _of(kind: type) -> Check:
    """Return the check of a plain value, or of a record and its plain fields."""
    fields = {name: one for name, one in (get_type_hints(kind).items() if is_dataclass(kind) else ()) if one in _WANTED}

    def check(call: Call, value: Any) -> Any:  # noqa: ANN401  # this is where it is checked
        if not (_is_number(value) if kind is int else isinstance(value, kind)):
            call.returned(value, _WANTED.get(kind, kind.__name__))
        for name, one in fields.items():
            _of(one)(Call(call.plugin, f"{call}.{name}"), getattr(value, name))
        return value

    return check


def _is_number(value: object) -> bool:
    # True is an int to Python, and never what is meant.
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _one_of(words: tuple[str, ...]) -> Check:
    def check(call: Call, value: Any) -> Any:  # noqa: ANN401  # ditto
        if value not in words:
            call.returned(value, f"one of {', '.join(words)}")
        return value

    return check


def _extents(call: Call, value: Any) -> Iterator[api.Extent]:  # noqa: ANN401  # ditto
    if not isinstance(value, Iterable):
        call.returned(value, "extents")
    return _each(call, value)


def _each(call: Call, extents: Iterable[Any]) -> Iterator[api.Extent]:
    with call:
        for extent in extents:
            if not isinstance(extent, api.Extent):
                call.returned(extent, "an Extent")
            if not (isinstance(extent.offset, int) and isinstance(extent.length, int)):
                call.returned(extent.offset, "whole numbers in an Extent")
            yield extent


def _written(call: Call, value: Any) -> int:  # noqa: ANN401  # this is where it is checked
    _, _, data, *_ = call.arguments or ()
    if _of(int)(call, value) > len(data):
        call.returned(value, f"at most the {len(data)} bytes that it was given")
    return int(value)


def _whole(call: Call, value: Any) -> bytes:  # noqa: ANN401  # ditto
    _, length, *_ = call.arguments or ()
    if len(_of(bytes)(call, value)) != length:
        short = f"{call} returned {counted(len(value), 'byte')} instead of {length}; did the source shrink meanwhile?"
        raise BrokenPluginError(call.plugin, short)
    return bytes(value)


def _verify(
    self: Guard, snapshot: object, image: object, mismatch: api.MismatchHandler, progress: object
) -> api.Report:
    """Call a verifier. What `mismatch` raises is the core's own, and stays as it is."""
    own: list[BaseException] = []

    def take(found: api.Mismatch) -> None:
        if not isinstance(found, api.Mismatch):
            Call(self._plugin, "verify").returned(found, "a Mismatch for its handler")
        try:
            mismatch(found)
        except BaseException as error:
            own.append(error)
            raise

    try:
        with Call(self._plugin, "verify", ()) as call:
            report = self._guarded.verify(snapshot, image, take, progress)
    except PluginError as fault:
        if fault.__cause__ in own:
            raise own[-1]  # noqa: B904  # it is no consequence of the fault, but what was taken for one
        raise
    _of(api.Report)(call, report)
    if report.checked > report.total:
        call.returned(report, f"a Report of at most {report.total} chunks")
    # Text is a sequence of texts, too: each letter would be a remark.
    if not isinstance(report.remarks, list | tuple) or not all(isinstance(remark, str) for remark in report.remarks):
        Call(call.plugin, f"{call}.remarks").returned(report.remarks, "a list of texts")
    return report  # type: ignore[no-any-return]  # this function has made sure


_SPECIAL: Final[Mapping[object, Check]] = {api.Image.pread: _whole, api.ImageWriter.write: _written}
"""Checks of methods that look at arguments."""


def _check(kind: Any) -> Check:  # noqa: ANN401  # any annotation
    """Return the check of what an annotation of the contract allows."""
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if NoneType in arguments:
        rest = _check(arguments[0])
        return lambda call, value: None if value is None else rest(call, value)
    if origin is AbstractContextManager:
        return context(_shape(arguments[0]))
    if origin is Literal:
        return _one_of(arguments)
    if origin is Iterable:
        return _extents
    # Nobody looks at what is returned in place of nothing.
    return anything if origin is NoneType else _of(origin)


@cache
def _shape(protocol: type) -> Shape:
    """Return the members of a protocol of the contract."""
    attributes, methods = {}, {}
    optional = {name: getattr(other, name) for other in _OPTIONAL.get(protocol, ()) for name in dir(other)}
    members = {**optional, **{name: getattr(protocol, name) for name in dir(protocol)}}
    for name, member in members.items():
        if isinstance(member, property):
            attributes[name] = _check(get_type_hints(member.fget)["return"])
        elif not name.startswith("_"):
            methods[name] = _SPECIAL.get(member) or _check(get_type_hints(member)["return"])
    return Shape(attributes, methods, optional=frozenset(optional) - frozenset(dir(protocol)))


def _made(protocol: type) -> Check:
    return lambda call, value: guarded(call, _shape(protocol), value)


_FACTORIES: Final[Mapping[str, Check]] = {
    "backy_source": _made(api.Source),
    "backy_source_config": _of(Mapping),
    "backy_storage_config": _of(Mapping),
    "backy_restore_target": context(_shape(api.RestoreTarget)),
    "backy_storage": _made(api.Storage),
    "backy_verifier": lambda call, value: guarded(call, Shape({}, {}, {"verify": _verify}), value),
}
"""What each factory has to return."""


def made(plugin: Plugin, factory: str, value: object) -> Any:  # noqa: ANN401  # the factory says what it is
    """Return what a factory of `plugin` has made, guarded; what backy's own plugins make stays as it is.

    Raises:
        BrokenPluginError: it is not what the factory has to make.
    """
    # A fault of the plugins that come along is backy's own, and they need no second look at each call.
    check = anything if plugin.core else _FACTORIES.get(factory, anything)
    return check(Call(plugin, f"hook {factory}"), value)
