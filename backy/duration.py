"""Lengths of time as users write them."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(text: str) -> timedelta:
    """Read a whole number with a unit s, m, h, d or w; without one it is seconds.

    Raises:
        ValueError: it is something else; the text says what it should be.
    """
    match = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write a number and s, m, h, d or w, as in '30m'")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
