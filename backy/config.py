"""Checks sections of configuration and names the key that is wrong. Plugins may use all of it."""

import re
import reprlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from backy.errors import ConfigError
from backy.text.phrases import alternatives

Section = TypeVar("Section", bound=msgspec.Struct)
Converted = TypeVar("Converted")
_TYPES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list"}
_SIGNS = {" | ": " or ", " <= ": " of at most ", " >= ": " of at least ", " > ": " above ", " < ": " below "}
_WORDS = {"object": "keys and values", "null": "nothing", "`": "", **_TYPES, **_SIGNS}
"""Parts of msgspec's messages, and what people say."""
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class BareConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section of a plugin that has no options."""

    type: str
    """The name of the plugin."""


class Duration(timedelta):
    """A length of time in a configuration: text such as '30m', or a whole number of seconds.

    `typed` accepts both for a field that has this type.
    """

    @classmethod
    def from_plain(cls, value: object) -> Self:
        """Make a duration from a value of a configuration.

        Raises:
            ValueError: `value` is no duration; the text shows the form.
        """
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise unexpected("a duration such as '30m', or seconds", value)
        return cls(seconds=parse_duration(value).total_seconds())


class Size(int):
    """A number of bytes in a configuration: text such as '30G', or a whole number. `typed` accepts both."""

    @classmethod
    def from_plain(cls, value: object) -> Self:
        """Make a size from a value of a configuration.

        Raises:
            ValueError: `value` is no size; the text shows the form.
        """
        match = None if isinstance(value, bool) else re.fullmatch(r"([0-9]{1,15})([KMGT]?)", str(value).strip())
        if match is None:
            raise unexpected("a size such as '30G', or bytes", value)
        return cls(int(match[1]) * 1024 ** "KMGT".find(match[2]) * 1024 if match[2] else int(match[1]))


def parse_duration(text: str | int) -> timedelta:
    """Read a whole number with a unit s, m, h, d or w; without a unit it is seconds.

    Raises:
        ValueError: `text` has another form, or the duration is too long; the text says so.
    """
    match = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write a number and s, m, h, d or w, as in '30m'")
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise ValueError(f"{text!r} is too long") from None


def format_duration(duration: timedelta) -> str:
    """Return the whole seconds of `duration` as `parse_duration` reads them, in the largest unit without a fraction."""
    seconds = duration // timedelta(seconds=1)
    unit = next(unit for unit in "wdhms" if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def typed(config: object, section: type[Section], path: str) -> Section:
    """Turn the mapping `config` into an object of the class `section`.

    Raises:
        ConfigError: keys are unknown, missing or of the wrong type; the text has all of them with their paths, which
            begin with `path`.
    """
    try:
        return convert(config, section)
    except msgspec.ValidationError as error:
        found = [f"{'.'.join(filter(None, [path, key]))}: {text}" for key, text in mistakes(config, section)]
        raise ConfigError("; ".join(found)) from error


def mistakes(value: object, section: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    """Yield all that keeps plain values from being a section: keys, empty for the whole of it, and texts for people."""
    # msgspec stops at the first mistake, but people want to see all
    fields = {field.encode_name: field for field in msgspec.structs.fields(section)}
    given: dict[Any, object] = value if isinstance(value, dict) else {}
    found = [(key, text) for key, field in fields.items() if key in given for text in _mistake(given[key], field.type)]
    if section.__struct_config__.forbid_unknown_fields:
        unknown = [str(key) for key in given if key not in fields]
        found += [(key, f"unknown key; {alternatives(key, fields)}") for key in unknown]
    if given is value:
        found += [("", f"the key '{key}' is missing") for key in fields if fields[key].required and key not in given]
    # it may be wrong as a whole, too, as two fields are that exclude each other
    wrong = {key for key, _ in found}
    if not wrong & {"", *(key for key, field in fields.items() if field.required)}:
        rest = {key: one for key, one in given.items() if key not in wrong} if given is value else value
        found += [("", text) for text in _mistake(rest, section)]
    yield from found


def _mistake(value: object, wanted: Any) -> Iterator[str]:  # noqa: ANN401  # a type, or what `typing` makes of some
    """Yield what msgspec says if a value does not fit, in the words of people and with a hint at the likely cause."""
    try:
        convert(value, wanted)
    except msgspec.ValidationError as error:
        # "Expected `int` <= 9, got `str` - at `$.key`": the caller has the key, and the value says more than its type
        text = str(error).partition(" - at `")[0].partition(", got `")[0]
        if text.startswith("Expected `"):
            # not the value of what has to be text, which may be somebody's password
            secret = re.search(r"\bstr\b", text) and isinstance(value, int | float) and not isinstance(value, bool)
            text = re.sub(r"`| [<>|]=? |\w+", lambda part: _WORDS.get(part[0], part[0]), text)
            text += f", got {'a number; text of digits needs quotes' if secret else shown(value)}"
        text = text[:1].lower() + text[1:]
        # two mistakes that cost people hours, as YAML shows neither
        if isinstance(value, str) and value.rstrip().endswith(","):
            text += "; the comma at its end belongs to the value"
        if isinstance(value, bool) and "expected text" in text:
            text += "; to YAML yes, no, on and off are no words unless they are in quotes"
        yield text


def convert(value: object, wanted: type[Converted]) -> Converted:
    """Turn plain values into an object of the type `wanted`. A `Path` has to be absolute.

    A type that msgspec does not know needs a class method `from_plain`, as `Duration` has.

    Raises:
        msgspec.ValidationError: `value` does not fit.
    """
    return msgspec.convert(value, wanted, dec_hook=_decode)


def unexpected(wanted: str, value: object) -> ValueError:
    """Return the error that names the wanted value and the one that was found."""
    return ValueError(f"expected {wanted}, got {shown(value)}")


def shown(value: object) -> str:
    """Return a plain value for a text: shortened, and None as nothing."""
    return "nothing" if value is None else reprlib.repr(value)


def _decode(wanted: type, value: object) -> Any:  # noqa: ANN401  # an instance of what `wanted` is
    if wanted is not Path:
        # A type of our own: it knows its written form.
        return wanted.from_plain(value)  # type: ignore[attr-defined]  # or there is a mistake in a section's class
    if not isinstance(value, str):
        raise unexpected("a path", value)
    if not value.startswith("/") or "\0" in value:
        raise ValueError(f"{value!r} is no absolute path")
    return Path(value)
