"""Checks sections of configuration and names the key that is wrong. Plugins may use all of it."""

from __future__ import annotations

import re
import reprlib
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from backy.errors import ConfigError

Section = TypeVar("Section", bound=msgspec.Struct)
Converted = TypeVar("Converted")
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
        ConfigError: a key is unknown, missing or of the wrong type; the text has its path, which begins with `path`.
    """
    try:
        return convert(config, section)
    except msgspec.ValidationError as error:
        # msgspec says "Expected `int`, got `str` - at `$.key`", or "at `key` in `$.section`" of a key itself.
        message, _, where = str(error).partition(" - at `")
        a_key, _, where = where.rpartition("$")
        message = f"{'a key is wrong, ' if a_key else ''}{message[:1].lower()}{message[1:]}"
        raise ConfigError(f"{path}{where.rstrip('`')}: {message}") from error


def convert(value: object, wanted: type[Converted]) -> Converted:
    """Turn plain values into an object of the type `wanted`. A `Path` has to be absolute.

    A type that msgspec does not know needs a class method `from_plain`, as `Duration` has.

    Raises:
        msgspec.ValidationError: `value` does not fit.
    """
    return msgspec.convert(value, wanted, dec_hook=_decode)


def unexpected(wanted: str, value: object) -> ValueError:
    """Return the error that names the wanted value and the one that was found."""
    return ValueError(f"expected {wanted}, got {'nothing' if value is None else reprlib.repr(value)}")


def _decode(wanted: type, value: object) -> Any:  # noqa: ANN401  # an instance of what `wanted` is
    if wanted is not Path:
        # A type of our own: it knows its written form.
        return wanted.from_plain(value)  # type: ignore[attr-defined]  # or there is a mistake in a section's class
    if not isinstance(value, str):
        raise unexpected("a path", value)
    if not value.startswith("/") or "\0" in value:
        raise ValueError(f"{value!r} is no absolute path")
    return Path(value)
