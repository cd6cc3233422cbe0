"""The protocols of the contract as guards check them: what each member has to return."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, get_args

from backy.api import Consistency, Extent, Held, Mismatch, MismatchHandler, Purged, Report, Stored
from backy.plugins.discovery import Plugin
from backy.plugins.guard import Call, Check, Guard, Shape, context, guarded


def _of(kind: type | UnionType, wanted: str) -> Check:
    def check(call: Call, value: Any) -> Any:  # noqa: ANN401  # this is where it is checked
        # True is an int to Python, and never what is meant.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            call.returned(value, wanted)
        return value

    return check


def _anything(_call: Call, value: Any) -> Any:  # noqa: ANN401  # it is not looked at
    return value


def _size(call: Call, value: Any) -> int:  # noqa: ANN401  # this is where it is checked
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        call.returned(value, "a number of bytes")
    return value


def _size_if_known(call: Call, value: Any) -> int | None:  # noqa: ANN401  # ditto
    return None if value is None else _size(call, value)


def _extents(call: Call, value: Any) -> Iterator[Extent]:  # noqa: ANN401  # ditto
    if not isinstance(value, Iterable):
        call.returned(value, "extents")
    return _each(call, value)


def _extents_if_known(call: Call, value: Any) -> Iterator[Extent] | None:  # noqa: ANN401  # ditto
    return None if value is None else _extents(call, value)


def _each(call: Call, extents: Iterable[Any]) -> Iterator[Extent]:
    try:
        for extent in extents:
            if not isinstance(extent, Extent):
                call.returned(extent, "an Extent")
            if not (isinstance(extent.offset, int) and isinstance(extent.length, int)):
                call.returned(extent.offset, "whole numbers in an Extent")
            yield extent
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001  # it is raised again, or told as the plugin's
        call.failed(error)


def _written(call: Call, value: Any) -> int:  # noqa: ANN401  # this is where it is checked
    _, _, data, *_ = call.arguments or ()
    if _size(call, value) > len(data):
        call.returned(value, f"at most the {len(data)} bytes that it was given")
    return int(value)


def _consistency(call: Call, value: Any) -> Any:  # noqa: ANN401  # this is where it is checked
    if value not in get_args(Consistency):
        call.returned(value, f"one of {', '.join(get_args(Consistency))}")
    return value


def _sizes(kind: type, *names: str) -> Check:
    """Return the check of a record whose fields `names` are numbers of bytes or of files."""

    def check(call: Call, value: Any) -> Any:  # noqa: ANN401  # this is where it is checked
        if not isinstance(value, kind):
            call.returned(value, kind.__name__)
        for name in names:
            _size(Call(call.plugin, f"{call}.{name}"), getattr(value, name))
        return value

    return check


def _report(call: Call, value: Any) -> Report:  # noqa: ANN401  # ditto
    _sizes(Report, "checked", "total")(call, value)
    if value.checked > value.total or not isinstance(value.verifier, str):
        call.returned(value, f"a Report of at most {value.total} chunks and a verifier's name")
    # Text is a sequence of texts, too: each letter would be a remark.
    if not isinstance(value.remarks, list | tuple) or not all(isinstance(remark, str) for remark in value.remarks):
        Call(call.plugin, f"{call}.remarks").returned(value.remarks, "a list of texts")
    return value  # type: ignore[no-any-return]  # `_sizes` has made sure


def _verify(self: Guard, snapshot: object, image: object, mismatch: MismatchHandler, progress: object) -> Report:
    """Call a verifier. What `mismatch` raises is the core's own, and stays as it is."""
    own: list[BaseException] = []
    call = Call(self._plugin, "verify", ())

    def take(found: Mismatch) -> None:
        if not isinstance(found, Mismatch):
            Call(self._plugin, "verify").returned(found, "a Mismatch for its handler")
        try:
            mismatch(found)
        except BaseException as error:
            own.append(error)
            raise

    try:
        report = self._guarded.verify(snapshot, image, take, progress)
    except BaseException as error:
        if error in own:
            raise
        call.failed(error)
    return _report(call, report)


_SNAPSHOT = Shape(
    attributes={"size": _size, "consistency": _consistency, "unfrozen": _of(bool, "True or False")},
    methods={"extents": _extents, "pread": _of(bytes, "bytes"), "changes": _extents_if_known},
    optional=frozenset({"consistency", "unfrozen"}),
)
_WRITER = Shape(
    attributes={},
    methods={"write": _written, "zero": _anything, "commit": _sizes(Stored, "bytes")},
)
_READER = Shape(attributes={}, methods={"read": _of(bytes, "bytes"), "probe": _size_if_known})
_TARGET = Shape(attributes={}, methods={"pwrite": _anything, "zero": _anything, "finish": _anything})
_SOURCE = Shape(
    attributes={"verifier": _of(str, "a verifier's name")},
    methods={"snapshot": context(_SNAPSHOT), "retain": _anything},
    optional=frozenset({"retain"}),
)
_STORAGE = Shape(
    attributes={
        "raw": _of(bool, "True or False"),
        "shares_chunks": _of(bool, "True or False"),
        "identity": _of(str, "the identity of the store"),
        "verifier": _of(str | None, "a verifier's name"),
        "parallel": _size,
        "restore_hint": _of(str, "a line of text"),
    },
    methods={
        "inventory": _of(Mapping, "sizes by id"),
        "initialize": _anything,
        "create": context(_WRITER),
        "open": context(_READER),
        "repair": _anything,
        "remove": _anything,
        "held": _sizes(Held, "files", "bytes"),
        "purge": _sizes(Purged, "files", "bytes"),
        "dispose": _anything,
    },
    optional=frozenset({"verifier", "parallel", "restore_hint", "inventory", "dispose"}),
)
_VERIFIER = Shape(attributes={}, methods={}, functions={"verify": _verify})


def _made(shape: Shape) -> Check:
    return lambda call, value: guarded(call, shape, value)


_FACTORIES: Mapping[str, Check] = {
    "backy_source": _made(_SOURCE),
    "backy_source_config": _of(Mapping, "keys and values"),
    "backy_restore_target": context(_TARGET),
    "backy_storage": _made(_STORAGE),
    "backy_verifier": _made(_VERIFIER),
}
"""What each factory has to return."""


def made(plugin: Plugin, factory: str, value: object) -> Any:  # noqa: ANN401  # the factory says what it is
    """Return what a factory of `plugin` has made, guarded; what backy's own plugins make stays as it is.

    Raises:
        BrokenPluginError: it is not what the factory has to make.
    """
    # A fault of the plugins that come along is backy's own, and they need no second look at each call.
    check = _anything if plugin.core else _FACTORIES.get(factory, _anything)
    return check(Call(plugin, f"hook {factory}"), value)
