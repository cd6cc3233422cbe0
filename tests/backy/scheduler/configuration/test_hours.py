"""Hours of the day, with clocks that are set forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.config import convert
from backy.retention.rules import EPOCH
from backy.scheduler.configuration.hours import DAY, Hours, Zone

BERLIN = Zone("Europe/Berlin")
NIGHT = Hours((time(22), time(6), BERLIN))
MINUTE = timedelta(minutes=1)
TIMES = st.times().map(lambda one: one.replace(second=0, microsecond=0))
ZONES = st.sampled_from([Zone(name) for name in ("UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York")])
HOURS = st.tuples(TIMES, TIMES, ZONES).map(Hours)
NOW = st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # the zone is beside


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22:00-06:00", Hours((time(22), time(6), None))),
        ("18:30 - 24:00", Hours((time(18, 30), time(0), None))),
        ("00:00-24:00", Hours((time(0), time(0), None))),
    ],
)
def test_hours_are_read(text: str, expected: Hours) -> None:
    assert convert(text, Hours) == expected


@pytest.mark.parametrize(
    "text", ["", "22-6", "22:00", "25:00-06:00", "22:00-06:60", "22:00-06:00-07:00", 22, "22:00Z-6:00"]
)
def test_what_are_no_hours(text: object) -> None:
    with pytest.raises(ValueError, match="expected hours such as '22:00-06:00', got "):
        convert(text, Hours)


@pytest.mark.parametrize("name", ["Mars/Base", "", "../etc", "Europe", "\0", 5])
def test_what_is_no_zone(name: object) -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        convert(name, Zone)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-29T12:00:00+00:00", "2026-11-29T21:00:00+00:00"),  # winter: an hour before UTC
        ("2026-07-29T12:00:00+00:00", "2026-07-29T20:00:00+00:00"),
        ("2026-11-29T23:00:00+00:00", "2026-11-29T23:00:00+00:00"),
        ("2026-11-29T05:00:00+00:00", "2026-11-29T21:00:00+00:00"),  # the end does not belong to it
        ("2026-03-28T12:00:00+00:00", "2026-03-28T21:00:00+00:00"),
        ("2026-03-29T12:00:00+00:00", "2026-03-29T20:00:00+00:00"),  # the clock went forward
    ],
)
def test_a_night(now: str, expected: str) -> None:
    assert NIGHT.opens(datetime.fromisoformat(now)) == datetime.fromisoformat(expected)


def test_a_time_that_a_day_leaves_out() -> None:
    """The clock goes from 02:00 to 03:00."""
    hours = Hours((time(2, 30), time(5), BERLIN))
    assert hours.opens(datetime(2026, 3, 29, 0, 30, tzinfo=UTC)) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def test_a_time_that_a_day_has_twice() -> None:
    """The clock goes from 03:00 to 02:00 at 01:00 UTC."""
    now, again = datetime(2026, 10, 25, 1, 10, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert Hours((time(2, 30), time(5), BERLIN)).opens(now) == again
    assert Hours((time(1), time(2, 30), BERLIN)).closes(now) == again
    assert Hours((time(2, 30), time(5), BERLIN)).opens(now - DAY / 24) == again - DAY / 24


@given(HOURS, NOW)
def test_it_opens_within_two_days_and_closes_after_it_has_opened(hours: Hours, now: datetime) -> None:
    opens = hours.opens(now)
    assert now <= opens <= now + 2 * DAY
    assert opens < hours.closes(opens) <= opens + 2 * DAY
    local = opens.astimezone(hours[2]).time()
    inside = [local >= hours[0], local < hours[1]]
    # a time that the day leaves out is later by an hour, which may be after the end
    skipped = opens.astimezone(hours[2]).utcoffset() != (opens - 3 * DAY / 24).astimezone(hours[2]).utcoffset()
    assert skipped or (all(inside) if hours[0] < hours[1] else any(inside))


@given(HOURS, NOW)
def test_before_it_opens_it_is_closed(hours: Hours, now: datetime) -> None:
    opens = hours.opens(now)
    if opens - now > 3 * MINUTE:
        assert hours.opens(opens - 2 * MINUTE) == opens
    assert timedelta() < hours.length <= DAY


@given(HOURS, st.timedeltas(timedelta(), 30 * DAY), st.integers(1, 700))
def test_runs_are_spread_over_the_first_half_of_the_hours(hours: Hours, shift: timedelta, days: int) -> None:
    spread = hours.spread(shift)
    assert abs(spread - shift) < DAY
    run = EPOCH + spread + (datetime(2026, 1, 1, tzinfo=UTC) - EPOCH) // DAY * DAY + days * DAY
    opened = hours.opens(run)
    # in one season they may be before the hours, by the hour that clocks are set
    assert opened - run <= timedelta(hours=1)


def test_the_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import time as clock

    monkeypatch.setenv("TZ", "Europe/Berlin")
    clock.tzset()
    try:
        now = datetime(2026, 7, 29, 12, tzinfo=UTC)
        assert Hours((*NIGHT[:2], None)).opens(now) == NIGHT.opens(now)
    finally:
        monkeypatch.undo()
        clock.tzset()
