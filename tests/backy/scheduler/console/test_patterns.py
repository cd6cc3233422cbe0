from __future__ import annotations

import pytest

from backy.errors import BackyError
from backy.scheduler.console.jobtable import LONGEST, matcher


def test_a_pattern_is_found_anywhere_in_a_name() -> None:
    matches = matcher("^web.*[0-9]$|grün")
    assert [name for name in ("web1", "web", "aweb1", "begrünt") if matches(name)] == ["web1", "begrünt"]


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(.*a){30}", r"^(([a-z])+.)+[A-Z]([a-z])+$", "(x+x+)+y"])
def test_catastrophic_patterns_are_none(pattern: str) -> None:
    assert matcher(pattern)("a" * 100_000 + "!") is (pattern == r"(.*a){30}")


@pytest.mark.parametrize("pattern", ["(", "[a", r"\1", "(?=a)", "a{1001}", "((a{100}){100}){100}", "\udcff"])
def test_what_is_no_pattern_is_said_to_be_none(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BackyError, match="is no regular expression"):
        matcher(pattern)
    assert capfd.readouterr().err == ""


def test_a_pattern_has_an_end() -> None:
    matcher("a" * LONGEST)
    with pytest.raises(BackyError, match="at most 1000"):
        matcher("a" * (LONGEST + 1))
