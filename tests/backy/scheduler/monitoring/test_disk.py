from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.scheduler.monitoring.status import STEP, WEEK, DiskStatus, judged, look, space

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GiB = 2**30


def disk(free: int, size: int = 100 * GiB) -> DiskStatus:
    return DiskStatus(place="/srv/backy", size=size, free=free, growth=0)


def days(*free: int, step: timedelta = timedelta(days=1)) -> list[DiskStatus]:
    """Judge a disk once a day."""
    found: list[DiskStatus] = []
    for number, one in enumerate(free):
        found.append(judged(disk(one * GiB), found[-1] if found else None, NOW + number * step))
    return found


def test_a_disk_is_low_when_less_is_left_than_the_last_week_took() -> None:
    found = days(60, 55, 50, 45, 40, 35, 30, 25, 20)

    assert [one.growth // GiB for one in found] == [0, 5, 10, 15, 20, 25, 30, 35, 35]
    assert [bool(one.low_since) for one in found] == [False] * 7 + [True, True]
    # since then, however often it is looked at
    assert found[-1].low_since == found[-2].low_since == NOW + timedelta(days=7)
    assert space(found[-1]) == (
        "/srv/backy: 20.0 GiB left on the disk of 100.0 GiB, of which 35.0 GiB more are used than a week ago: "
        "full in 4 days if that goes on"
    )


def test_what_is_freed_again_is_no_growth() -> None:
    assert [one.low_since for one in days(5, 4, 5, 4, 5, 4, 5, 4, 5, 4)] == [None] * 10
    assert days(50, 20, 60)[-1].growth == 0


def test_a_full_disk_is_low_even_if_it_does_not_grow() -> None:
    found = judged(disk(0), None, NOW)

    assert found.low_since == NOW
    assert space(found).endswith("0 Bytes left on the disk of 100.0 GiB, which is full")


def test_a_first_look_and_another_disk_tell_of_no_growth() -> None:
    before = days(60, 40)[-1]

    assert judged(disk(1 * GiB), None, NOW).growth == 0
    assert judged(disk(1 * GiB, 200 * GiB), before, NOW + timedelta(days=2)).growth == 0


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(-90_000, 400_000)), max_size=60))
def test_growth_is_that_of_a_week_at_most_whatever_the_clock_does(looks: list[tuple[int, int]]) -> None:
    now, known, before = NOW, [], None
    for free, seconds in looks:
        now += timedelta(seconds=seconds)
        before = judged(disk(free), before, now)
        known.append((now, before.size - free))
        assert 0 <= before.growth <= max(used for _, used in known) - min(used for _, used in known)
        assert all(timedelta() <= now - sample.time <= WEEK for sample in before.samples)
        assert (before.samples[0].time, before.samples[0].used) in known
        assert len(before.samples) <= WEEK / STEP + 2
        assert bool(before.low_since) == (free < before.growth or not free)


def test_the_disk_is_as_large_as_df_says(tmp_path: Path) -> None:
    found = look(tmp_path)
    # The machine that tests run on is in use.
    assert found.free == pytest.approx(os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize, rel=0.2)
    assert found.free < found.size


def test_what_grew_within_days_is_not_taken_for_that_of_a_week() -> None:
    # 10 GiB a day, and 60 are left
    assert space(days(80, 70, 60)[-1]).endswith(": full in 6 days if that goes on")
    # of hours, nobody knows whether that goes on
    within_hours = days(80, 70, 60, step=STEP)[-1]
    assert within_hours.growth == 20 * GiB
    assert space(within_hours).endswith("20.0 GiB more are used than a week ago")
