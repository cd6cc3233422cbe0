"""Lengths of time as users write them."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Duration(timedelta):
    """A length of time in a configuration: text such as '30m', or a whole number of seconds.

    As the type of a section's field, `backy.config.typed` takes both.
    """


def parse_duration(text: str | int) -> timedelta:
    """Read a whole number with a unit s, m, h, d or w; without one it is seconds.

    Raises:
        ValueError: it is something else; the text says what it should be.
    """
    match = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write a number and s, m, h, d or w, as in '30m'")
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise ValueError(f"{text!r} is too long") from None


def format_duration(duration: timedelta) -> str:
    """Write whole seconds so that `parse_duration` reads them, in the largest unit that needs no fraction."""
    seconds = duration // timedelta(seconds=1)
    unit = next(unit for unit in "wdhms" if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"
