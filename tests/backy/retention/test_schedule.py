from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.repository.config import ScheduledTag
from backy.retention.rules import EPOCH, next_ideal, spread

DAY = timedelta(days=1)
NOW = datetime(2015, 9, 1, 7, 6, 47, tzinfo=UTC)
SHIFT = timedelta(seconds=100)
intervals = st.integers(1, 3650 * 86400).map(lambda seconds: timedelta(seconds=seconds))
times = st.integers(0, 10**15).map(lambda number: NOW + timedelta(microseconds=number))


@pytest.mark.parametrize(
    ("job", "limit", "seconds"),
    [
        ("test01", 86400, 19971),
        ("test02", 86400, 36217),
        ("asdf02", 86400, 14532),
        ("test01", 604800, 159773),
        ("test02", 604800, 289741),
        ("test01", 2592000, 639092),
    ],
)
def test_the_spread_is_that_of_backy_2(job: str, limit: int, seconds: int) -> None:
    schedule = {"short": ScheduledTag(timedelta(seconds=60), 1), "long": ScheduledTag(timedelta(seconds=limit), 1)}
    assert spread(job, schedule) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2015-09-01T07:06:47", "2015-09-02T00:01:40"),
        ("2015-09-01T00:01:20", "2015-09-01T00:01:40"),
        ("2015-09-01T00:01:39.999999", "2015-09-01T00:01:40"),
        ("2015-09-01T00:01:40", "2015-09-02T00:01:40"),
        ("2015-09-01T00:01:41", "2015-09-02T00:01:40"),
    ],
)
def test_the_next_run_is_that_of_backy_2(now: str, expected: str) -> None:
    found = next_ideal(DAY, SHIFT, datetime.fromisoformat(f"{now}+00:00"))
    assert found == datetime.fromisoformat(f"{expected}+00:00")


@given(intervals, intervals, times)
def test_runs_are_one_interval_apart_and_hang_on_the_epoch(
    interval: timedelta, shift: timedelta, now: datetime
) -> None:
    run = next_ideal(interval, shift, now)

    assert timedelta() < run - now <= interval
    assert (run - EPOCH - shift) % interval == timedelta()
    assert next_ideal(interval, shift, run) == run + interval


@given(intervals, intervals, times, st.integers(-24, 24))
def test_a_time_zone_changes_nothing(interval: timedelta, shift: timedelta, now: datetime, hours: int) -> None:
    elsewhere = now.astimezone(timezone(timedelta(minutes=30 * hours)))
    assert next_ideal(interval, shift, elsewhere) == next_ideal(interval, shift, now)
