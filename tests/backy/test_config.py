from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from backy.config import parse_duration, typed
from backy.errors import ConfigError


class Section(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    inner: dict[str, int] = {}


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"type": "x", "inner": {"a": "b"}}, r"config.source.inner\[...\]: expected `int`, got `str`"),
        ({"type": "x", "other": 1}, "config.source: object contains unknown field `other`"),
        ({}, "config.source: object missing required field `type`"),
    ],
)
def test_a_section_names_the_path_of_what_is_wrong(config: object, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        typed(config, Section, "config.source")


def test_a_sound_section_is_typed() -> None:
    assert typed({"type": "x", "inner": {"a": 1}}, Section, "config.source") == Section("x", {"a": 1})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("45", 45), ("45s", 45), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1w", 604800), (" 3m ", 180)],
)
def test_a_number_and_a_unit_are_a_duration(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "m", "-1s", "1.5h", "5 m", "5M", "1h30m", "1e3", "٣s", "9999999999"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="as in '30m'"):
        parse_duration(text)
