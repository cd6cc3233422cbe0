"""Converts the content of a document to types and reports each wrong key with its correct form."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from backy.config import convert
from backy.scheduler.configuration.document import Document
from backy.text.phrases import alternatives

Section = TypeVar("Section", bound=msgspec.Struct)
Key = tuple[str, ...]
"""Path of a value, such as `("jobs", "web1", "schedule")`."""

_WORDS = {
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "object": "keys and values",
    "array": "a list",
    "null": "nothing",
}
"""What msgspec calls the kinds of values, and what users call them."""

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
        self.report(key, f"expected keys and values, got {_shown(value)}")
        return {}

    def section(self, value: object, wanted: type[Section], key: Key) -> Section | None:
        """Convert keys and values to `wanted`. Report all problems and return None if there are any."""
        try:
            return convert(value, wanted)
        except msgspec.ValidationError as error:
            # msgspec stops at the first problem, but users want to see all: convert field by field.
            before = len(self._document.problems)
            content = self.mapping(value, key)
            if isinstance(value, dict):
                self._fields(content, wanted, key)
            if len(self._document.problems) == before:
                self.report(key, _problem(error))  # wrong as a whole, as two fields that exclude each other
            return None

    def keys(self, content: Iterable[str], known: Sequence[str], key: Key, also: Sequence[str] = ()) -> None:
        """Report keys that are neither in `known` nor in `also`; the latter are accepted but not offered."""
        for name in content:
            if name not in known and name not in also:
                self.report((*key, name), f"unknown key; {_RETIRED.get(name) or alternatives(name, known)}")

    def _fields(self, content: Mapping[str, Any], wanted: type[msgspec.Struct], key: Key) -> None:
        fields = {field.encode_name: field for field in msgspec.structs.fields(wanted)}
        if wanted.__struct_config__.forbid_unknown_fields:
            self.keys(content, list(fields), key)
        for name, field in fields.items():
            if name not in content:
                if field.required:
                    self.report(key, f"the key '{name}' is missing")
                continue
            try:
                convert(content[name], field.type)
            except msgspec.ValidationError as error:
                self.report((*key, name), _problem_of(error, content[name]))


def _problem(error: msgspec.ValidationError) -> str:
    """Return what msgspec says, in the words of users."""
    # Its path and the value are cut off: the report has the path as users write it, `_problem_of` adds the value.
    text = str(error).partition(" - at `")[0].partition(", got `")[0]
    text = re.sub(
        "`([^`]*)`", lambda kinds: " or ".join(_WORDS.get(kind, kind) for kind in kinds[1].split(" | ")), text
    )
    return text[:1].lower() + text[1:]


def _problem_of(error: msgspec.ValidationError, value: object) -> str:
    """Return the problem of a value, with a hint at the likely cause."""
    problem, shown = _problem(error), _shown(value)
    # A message about an expectation is half of the truth without the value; all others say enough.
    text = problem if shown in problem or not problem.startswith("expected") else f"{problem}, got {shown}"
    # Two mistakes that cost people hours, as YAML shows neither.
    if isinstance(value, str) and value.rstrip().endswith(","):
        return f"{text}; the comma at its end belongs to the value"
    if isinstance(value, bool) and _WORDS["str"] in problem:
        return f"{text}; to YAML yes, no, on and off are no words unless they are in quotes"
    return text


def _shown(value: object) -> str:
    """Return a value for a text: shortened, and None as nothing."""
    return "nothing" if value is None else reprlib.repr(value)
