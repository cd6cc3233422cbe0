"""Turning what is written into types, and saying of every key that is wrong what it should be."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from backy.config import convert
from backy.scheduler.document import Document
from backy.text.phrases import alternatives

Section = TypeVar("Section", bound=msgspec.Struct)
Key = tuple[str, ...]
"""The way to a value, such as `("jobs", "web1", "schedule")`."""

_WORDS = {
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "object": "keys and values",
    "array": "a list",
    "null": "nothing",
}
"""What msgspec calls the kinds of values, and what people do."""

_RETIRED = {
    "api": "the HTTP interface of an unreleased backy 2.6 is not there",
    "peers": "backup servers of an unreleased backy 2.6 do not know each other here",
}
"""Keys of other versions of backy, and what became of them."""


class Checker:
    """Reports what is wrong with a document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.report = document.report

    def mapping(self, value: object, key: Key) -> Mapping[str, Any]:
        """Return keys and values, none if there are not any, which is reported."""
        if isinstance(value, dict):
            return value
        self.report(key, f"expected keys and values, got {_shown(value)}")
        return {}

    def section(self, value: object, wanted: type[Section], key: Key) -> Section | None:
        """Turn keys and values into `wanted`; None if anything is wrong with them, all of which is reported."""
        try:
            return convert(value, wanted)
        except msgspec.ValidationError as error:
            before = len(self._document.problems)
            content = self.mapping(value, key)
            if isinstance(value, dict):
                self._fields(content, wanted, key)
            if len(self._document.problems) == before:
                self.report(key, _message(error))
            return None

    def keys(self, content: Iterable[str], known: Sequence[str], key: Key, also: Sequence[str] = ()) -> None:
        """Report keys that are neither `known` nor, though nobody is told so, taken `also`."""
        for name in content:
            if name not in known and name not in also:
                self.report((*key, name), f"unknown key; {_RETIRED.get(name) or alternatives(name, known)}")

    def _fields(self, content: Mapping[str, Any], wanted: type[msgspec.Struct], key: Key) -> None:
        fields = {field.encode_name: field for field in msgspec.structs.fields(wanted)}
        self.keys(content, list(fields), key)
        for name, field in fields.items():
            if name not in content:
                if field.required:
                    self.report(key, f"the key '{name}' is missing")
                continue
            try:
                convert(content[name], field.type)
            except msgspec.ValidationError as error:
                self.report((*key, name), _complaint(error, content[name]))


def _message(error: msgspec.ValidationError) -> str:
    """Return what msgspec says in plain words, without the path, which is told otherwise, and without what it got."""
    text = str(error).partition(" - at `")[0].partition(", got `")[0]
    text = re.sub(
        "`([^`]*)`", lambda kinds: " or ".join(_WORDS.get(kind, kind) for kind in kinds[1].split(" | ")), text
    )
    return text[:1].lower() + text[1:]


def _complaint(error: msgspec.ValidationError, value: object) -> str:
    """Say what is wrong with a value, and what it may have been meant to be."""
    message, shown = _message(error), _shown(value)
    text = message if shown in message else f"{message}, got {shown}"
    if isinstance(value, str) and value.rstrip().endswith(","):
        return f"{text}; the comma at its end belongs to the value"
    if isinstance(value, bool) and _WORDS["str"] in message:
        return f"{text}; to YAML yes, no, on and off are no words unless they are in quotes"
    return text


def _shown(value: object) -> str:
    """Return a value as users wrote it, cut short."""
    return "nothing" if value is None else reprlib.repr(value)
