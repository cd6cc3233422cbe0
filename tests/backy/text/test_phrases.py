from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from backy.text.phrases import alternatives, counted, did_you_mean, length_of_time, local_time, local_zone, size

SUMMER = datetime(2026, 7, 1, 22, 30, 5, 999_999, UTC)
WINTER = datetime(2026, 12, 31, 23, 0, 0, tzinfo=UTC)


@pytest.fixture
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as context:
        context.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def test_a_near_miss_is_a_question_that_anything_can_follow() -> None:
    assert did_you_mean("chonked", ["cow", "chunked"]) == "did you mean 'chunked'? "
    assert did_you_mean("chonked", iter(["tape"])) == ""
    assert did_you_mean("chonked", {}) == ""


def test_alternatives_are_all_there_are() -> None:
    assert alternatives("wekly", iter(["daily", "weekly"])) == "did you mean 'weekly'? there are: daily, weekly"
    assert alternatives("x", ["daily"]) == "there are: daily"
    assert alternatives("x", []) == "there are: none"


@pytest.mark.parametrize(("count", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (11, "11 files")])
def test_a_phrase_agrees_with_its_count(count: int, text: str) -> None:
    assert counted(count, "file") == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 are gone"), (1, "1 is gone"), (21, "21 are gone")])
def test_a_phrase_can_have_a_plural_of_its_own(count: int, text: str) -> None:
    assert counted(count, "is gone", "are gone") == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 Bytes"),
        (1, "1 Byte"),
        (1023, "1023 Bytes"),
        (1024, "1.0 KiB"),
        (5 * 2**19, "2.5 MiB"),
        (2**40, "1.0 TiB"),
    ],
)
def test_sizes_have_binary_units(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.usefixtures("_berlin")
def test_times_are_local() -> None:
    assert local_time(SUMMER) == "2026-07-02 00:30:05"
    assert local_time(SUMMER, zone=True) == "2026-07-02 00:30:05 CEST"
    assert local_time(WINTER, zone=True) == "2027-01-01 00:00:00 CET"
    assert local_time(None) == local_time(None, zone=True) == "-"


@pytest.mark.usefixtures("_berlin")
def test_the_zone_is_that_of_the_first_known_time() -> None:
    assert local_zone([None, WINTER, SUMMER]) == "CET"
    assert local_zone([SUMMER]) == "CEST"
    assert local_zone([None]) == local_zone([]) == "UTC"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0.0 s"),
        (5.26, "5.3 s"),
        (59.4, "59.4 s"),
        (59.5, "0:01:00"),
        (3661.4, "1:01:01"),
        (86400, "1 day, 0:00:00"),
        (200_000, "2 days, 7:33:20"),
    ],
)
def test_lengths_of_time_are_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert length_of_time(seconds) == text


def test_phrases_and_tables_import_nothing_slow() -> None:
    loaded = "{'difflib', 'humanize', 'rich'} & sys.modules.keys()"
    code = f"import sys, backy.text.phrases, backy.terminal.table; print({loaded})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
