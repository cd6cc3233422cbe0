from __future__ import annotations

from datetime import timedelta

import pytest

from backy.duration import parse_duration


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
