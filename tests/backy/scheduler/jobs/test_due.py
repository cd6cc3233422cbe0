from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.repository.config import ScheduledTag
from backy.repository.revision import Revision
from backy.retention.rules import EPOCH, Schedule, next_ideal
from backy.scheduler.jobs.due import (
    GRACE,
    Due,
    Past,
    backoff,
    by_interval,
    corrected,
    late_from,
    missed,
    next_due,
    tolerance,
)
from backy.system.clocks import Instant
from tests.revisions import make_revision

DAY = timedelta(days=1)
NOW = datetime(2015, 9, 1, 7, 6, 47, tzinfo=UTC)
DEFAULT: Schedule = {
    "daily": ScheduledTag(DAY, 10),
    "weekly": ScheduledTag(7 * DAY, 4),
    "monthly": ScheduledTag(30 * DAY, 4),
}
SHIFT = timedelta(seconds=100)
intervals = st.integers(1, 3650 * 86400).map(lambda seconds: timedelta(seconds=seconds))
times = st.integers(0, 10**15).map(lambda number: NOW + timedelta(microseconds=number))
schedules = st.dictionaries(st.sampled_from("abcde"), st.builds(ScheduledTag, intervals, st.just(1)), min_size=1)


def overdue(schedule: Schedule, past: Past, now: datetime) -> timedelta:
    return max(now - late_from(schedule, past), timedelta())


def revision(time: datetime, *tags: str) -> Revision:
    return make_revision("x" * 8, time, tags)


def past(now: datetime = NOW, **ages: timedelta) -> Past:
    """A job that has been known for ever, and has a revision of this age for each tag."""
    return Past.of([revision(now - age, tag) for tag, age in ages.items()], EPOCH, now)


def test_tags_of_one_instant_are_one_run() -> None:
    week = {"daily": DEFAULT["daily"], "weekly": DEFAULT["weekly"]}
    weekly = next_ideal(7 * DAY, SHIFT, NOW)
    fresh = past(weekly - timedelta(hours=1), daily=timedelta(hours=22), weekly=6.9 * DAY)

    assert next_due(week, SHIFT, fresh, weekly - timedelta(hours=1)) == Due(weekly, ("daily", "weekly"))


def test_a_new_job_waits_for_its_first_run_and_takes_all_tags() -> None:
    new = Past.of([], NOW, NOW)
    first = next_ideal(DAY, SHIFT, NOW)
    all_tags = ("daily", "monthly", "weekly")

    assert next_due(DEFAULT, SHIFT, new, NOW) == Due(first, all_tags)
    assert next_due(DEFAULT, SHIFT, new, first - timedelta(seconds=1)) == Due(first, all_tags)
    assert next_due(DEFAULT, SHIFT, new, first) == Due(first, all_tags)
    assert next_due(DEFAULT, SHIFT, new, first + timedelta(hours=3)) == Due(first + timedelta(hours=3), all_tags)


def test_what_was_missed_runs_at_once_and_alone() -> None:
    late = past(daily=2 * DAY, weekly=DAY, monthly=DAY)

    assert next_due(DEFAULT, SHIFT, late, NOW) == Due(NOW, ("daily",))


@pytest.mark.parametrize(("seconds", "waits"), [(300, True), (301, False)])
def test_what_was_missed_waits_for_a_run_that_is_near(seconds: int, waits: bool) -> None:
    run = next_ideal(DAY, SHIFT, NOW)
    now = run - timedelta(seconds=seconds)
    due = next_due(DEFAULT, SHIFT, past(now, daily=DAY / 2, weekly=8 * DAY, monthly=DAY), now)

    assert due == (Due(run, ("daily", "weekly")) if waits else Due(now, ("weekly",)))


def test_a_tag_that_was_never_run_is_missed() -> None:
    assert next_due(DEFAULT, SHIFT, past(daily=timedelta(hours=1), weekly=DAY), NOW) == Due(NOW, ("monthly",))


def test_tags_given_by_hand_are_no_runs() -> None:
    by_hand = past(other=timedelta(), daily=timedelta(hours=1), weekly=DAY, monthly=DAY)

    assert next_due(DEFAULT, SHIFT, by_hand, NOW) == Due(next_ideal(DAY, SHIFT, NOW), ("daily",))


def test_a_restart_between_a_run_and_its_start_does_not_skip_it() -> None:
    """backy 2 looked at the revision's age, less than a day here, and waited for the day after."""
    run = next_ideal(DAY, SHIFT, NOW)
    started_late_yesterday = Past.of(
        [revision(run - DAY + timedelta(minutes=30), "daily", "weekly", "monthly")], EPOCH, NOW + DAY
    )
    restart = run + timedelta(minutes=10)

    assert next_due(DEFAULT, SHIFT, started_late_yesterday, restart) == Due(restart, ("daily",))


def test_runs_minutes_apart_do_not_wait_for_each_other_for_ever() -> None:
    quick = {"often": ScheduledTag(timedelta(minutes=2), 1)}
    run = next_ideal(timedelta(minutes=2), SHIFT, NOW)
    woken = run + timedelta(seconds=1)

    assert next_due(quick, SHIFT, past(run, often=timedelta(minutes=2)), woken) == Due(woken, ("often",))


@given(schedules, st.dictionaries(st.sampled_from("abcdex"), times), times, times, intervals)
def test_a_run_is_never_empty_nor_in_the_past_and_sees_to_all_that_was_missed(
    schedule: Schedule, tags: dict[str, datetime], since: datetime, now: datetime, shift: timedelta
) -> None:
    job = Past.of([revision(time, tag) for tag, time in tags.items()], since, now)
    late = missed(schedule, shift, job, now)
    due = next_due(schedule, shift, job, now)

    assert now <= due.time <= now + min(tag.interval for tag in schedule.values())
    assert due.tags
    assert late <= set(due.tags) <= set(schedule)
    assert due.time == now or due.time == min(next_ideal(tag.interval, shift, now) for tag in schedule.values())


@given(schedules, st.dictionaries(st.sampled_from("abcde"), times, min_size=1), times, intervals)
def test_whatever_backy_2_made_up_for_is_missed(
    schedule: Schedule, tags: dict[str, datetime], now: datetime, shift: timedelta
) -> None:
    job = Past.of([revision(time, tag) for tag, time in tags.items()], EPOCH, now)
    never = datetime(1, 1, 1, tzinfo=UTC)
    by_age = {name for name, tag in schedule.items() if tags.get(name, never) <= now - tag.interval}

    assert by_age <= missed(schedule, shift, job, now)


def test_the_wait_after_failures_doubles_up_to_six_hours() -> None:
    minutes = [backoff(failures) / timedelta(minutes=1) for failures in range(1, 12)]
    assert minutes == [2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]
    assert backoff(10**9) == timedelta(hours=6)


def test_a_job_is_overdue_after_one_and_a_half_of_its_smallest_interval() -> None:
    assert overdue(DEFAULT, past(monthly=1.5 * DAY), NOW) == timedelta()
    assert overdue(DEFAULT, past(monthly=1.5 * DAY + SHIFT, weekly=3 * DAY), NOW) == SHIFT


def test_a_job_that_never_succeeded_is_overdue_too() -> None:
    assert overdue(DEFAULT, Past.of([], NOW - 1.5 * DAY, NOW), NOW) == timedelta()
    assert overdue(DEFAULT, Past.of([], NOW - 2 * DAY, NOW), NOW) == DAY / 2


def test_tags_are_shown_by_interval_and_strangers_first() -> None:
    assert by_interval(DEFAULT, ["monthly", "x", "daily", "weekly", "manual:a"]) == [
        "manual:a", "x", "daily", "weekly", "monthly",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "allowed"), [(DAY, 300), (timedelta(seconds=10), 1), (timedelta(minutes=50), 300)]
)
def test_a_revision_ahead_of_the_clock_counts_for_nothing(interval: timedelta, allowed: int) -> None:
    schedule = {"often": ScheduledTag(interval, 3)}
    assert tolerance(schedule) == timedelta(seconds=allowed)
    limit = NOW + tolerance(schedule)
    early, late = revision(NOW - 2 * interval, "often"), revision(limit + timedelta(seconds=1), "often")

    job = Past.of([late, early], EPOCH, limit)
    assert (job.newest, job.tags, job.ahead) == (early.timestamp, {"often": early.timestamp}, (late.id,))
    assert missed(schedule, SHIFT, job, NOW) == {"often"}
    assert overdue(schedule, job, NOW) == interval / 2
    assert job.depends_on(limit)
    just = Past.of([early, revision(limit, "often")], EPOCH, limit)
    assert (just.newest, just.ahead, just.depends_on(limit)) == (limit, (), False)
    assert just.depends_on(limit - timedelta(seconds=1)), "the clock was set back"


def by_clocks(*made: tuple[float, str, float]) -> list[Revision]:
    """Make revisions, the oldest first, of a time in days, a boot and the days since then."""
    return [
        make_revision(f"{number}", NOW + days * DAY, ["daily"], boot=boot, boottime=up * 86400)
        for number, (days, boot, up) in enumerate(made)
    ]


def test_one_that_was_made_while_the_clock_was_ahead_is_not_new_when_its_time_comes() -> None:
    """It was three days ahead for three days, and by the other clock two days have passed since the last one."""
    history = by_clocks((0, "a", 1), (4, "a", 2), (5, "a", 3), (6, "a", 4))
    now = Instant(NOW + 5 * DAY, "a", 6 * 86400.0)
    began = corrected(history, now, GRACE)
    assert began == {"1": NOW + DAY, "2": NOW + 2 * DAY, "3": NOW + 3 * DAY}

    job = Past.of(history, EPOCH, now.wall, began)
    assert (job.newest, job.tags, job.ahead) == (NOW + 2 * DAY, {"daily": NOW + 2 * DAY}, ("3",))


def test_across_boots_none_is_later_than_what_was_made_after_it() -> None:
    history = by_clocks((0, "a", 1), (9, "a", 2), (2, "b", 0.5), (3, "c", 1))
    assert corrected(history, Instant(NOW + 4 * DAY, "d", 10.0), GRACE) == {"1": NOW + 2 * DAY}
    # in this boot the clock began in 1970, and was set later
    history = by_clocks((0, "a", 1), (1, "a", 2), (-9999, "b", 0.25), (2, "b", 0.5))
    assert corrected(history, Instant(NOW + 4 * DAY, "c", 10.0), GRACE) == {}


@given(st.lists(st.tuples(st.floats(0.001, 40), st.booleans()), max_size=12), st.floats(0.001, 40))
def test_where_the_clocks_are_right_nothing_is_corrected(steps: list[tuple[float, bool]], last: float) -> None:
    made, time, up, boot = [], 0.0, 0.0, 0
    for days, restarted in steps:
        time, up, boot = time + days, 0.0 if restarted else up + days, boot + restarted
        made.append((time, str(boot), up))
    now = Instant(NOW + (time + last) * DAY, str(boot), (up + last) * 86400)
    assert corrected(by_clocks(*made), now, timedelta(seconds=1)) == {}


def test_images_that_were_imported_are_of_the_time_that_they_say() -> None:
    imported = make_revision("old", NOW - 100 * DAY, ["daily"])
    (made,) = by_clocks((0, "a", 1))
    assert corrected([made, imported], Instant(NOW, "a", 86400.0), GRACE) == {}
