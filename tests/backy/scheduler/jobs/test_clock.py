from __future__ import annotations

from datetime import UTC, datetime, timedelta

from backy.scheduler.jobs.due import ClockWatch


def test_a_clock_that_is_set_is_told_once_and_one_that_runs_is_not() -> None:
    wall, up = datetime(2026, 1, 1, tzinfo=UTC), 100.0
    watch, jumps = ClockWatch(lambda: wall, lambda: up), []
    for passed, jump in [(60, 0.0), (3600, 100.0), (1, 0.0), (0, -86400.0), (7 * 86400, 0.5)]:
        up += passed
        wall += timedelta(seconds=passed + jump)
        jumps.append(watch.jump().total_seconds())

    assert jumps == [0, 100, 0, -86400, 0]
    assert watch.watched == timedelta(seconds=60 + 3600 + 1 + 7 * 86400)
