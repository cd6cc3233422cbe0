"""Converts the content of a document to types and reports each wrong key with its correct form."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from backy.config import convert, mistakes, shown
from backy.scheduler.configuration.document import Document
from backy.text.phrases import alternatives

Section = TypeVar("Section", bound=msgspec.Struct)
Key = tuple[str, ...]
"""Path of a value, such as `("jobs", "web1", "schedule")`."""

_RETIRED = {
    "api": "the HTTP interface of an unreleased backy 2.6 is not there",
    "peers": "backup servers of an unreleased backy 2.6 do not know each other here",
}
"""Keys of other versions of backy, and what happened to them."""


class Checker:
    """Reports the problems of a document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.report = document.report

    def mapping(self, value: object, key: Key) -> Mapping[str, Any]:
        """Return `value` if it is a mapping. Report anything else and return an empty mapping."""
        if isinstance(value, dict):
            return value
        self.report(key, f"expected keys and values, got {shown(value)}")
        return {}

    def section(self, value: object, wanted: type[Section], key: Key) -> Section | None:
        """Convert keys and values to `wanted`. Report all mistakes, and return what is left without wrong keys.

        Return None if not enough is left.
        """
        try:
            return convert(value, wanted)
        except msgspec.ValidationError:
            wrong = dict(mistakes(value, wanted))
            for name, text in mistakes(value, wanted):
                retired = _RETIRED.get(name) if text.startswith("unknown key") else None
                self.report((*key, name) if name else key, f"unknown key; {retired}" if retired else text)
            # Nobody uses it, but what is right has to be checked, too: no mistake may hide another one.
            with suppress(msgspec.ValidationError):
                written = value if isinstance(value, dict) else {}
                return convert({name: one for name, one in written.items() if name not in wrong}, wanted)
            return None

    def keys(self, content: Iterable[str], known: Sequence[str], key: Key, also: Sequence[str] = ()) -> None:
        """Report keys that are neither in `known` nor in `also`; the latter are accepted but not offered."""
        for name in content:
            if name not in known and name not in also:
                self.report((*key, name), f"unknown key; {_RETIRED.get(name) or alternatives(name, known)}")
