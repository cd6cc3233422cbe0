from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.config import Duration, parse_duration, typed
from backy.errors import ConfigError


class Section(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    inner: dict[str, int] = {}


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"type": "x", "inner": {"a": "b"}}, "config.source.inner: expected a whole number, got {'a': 'b'}"),
        ({"type": "x", "other": 1}, "config.source.other: unknown key; there are: type, inner"),
        ({}, "config.source: the key 'type' is missing"),
    ],
)
def test_a_section_names_the_path_of_what_is_wrong(config: object, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        typed(config, Section, "config.source")


class Wide(msgspec.Struct, forbid_unknown_fields=True):
    level: Annotated[int, msgspec.Meta(le=19)] = 0
    share: Annotated[float, msgspec.Meta(gt=0.0)] = 1.0
    token: str = ""
    hosts: str | tuple[str, ...] | None = None
    on: bool = True
    path: Path | None = None
    wait: Duration | None = None


WRONG = {
    "level": (99, "config.x.level: expected a whole number of at most 19, got 99"),
    "share": (0, "config.x.share: expected a number above 0.0, got 0"),
    "token": (12345, "config.x.token: expected text, got a number; text of digits needs quotes"),
    "hosts": (3.5, "config.x.hosts: expected text or a list or nothing, got a number; text of digits needs quotes"),
    "on": ("a <= b,", "config.x.on: expected true or false, got 'a <= b,'; the comma at its end belongs to the value"),
    "path": ("here", "config.x.path: 'here' is no absolute path"),
    "wait": (1.5, "config.x.wait: expected a duration such as '30m', or seconds, got 1.5"),
    "levle": (
        1,
        "config.x.levle: unknown key; did you mean 'level'? there are: level, share",
    ),
}


@given(st.lists(st.sampled_from(list(WRONG)), min_size=1, unique=True))
def test_no_mistake_hides_another_and_all_are_told_in_the_words_of_people(keys: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        typed({key: WRONG[key][0] for key in keys}, Wide, "config.x")
    told = str(raised.value)
    assert [key for key in WRONG if WRONG[key][1] in told] == sorted(keys, key=list(WRONG).index)
    assert told.count("config.x.") == len(keys)


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
