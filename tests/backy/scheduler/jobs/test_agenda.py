from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.repository.config import ScheduledTag
from backy.retention.rules import next_ideal
from backy.scheduler.configuration.hours import Hours, Zone
from backy.scheduler.jobs.agenda import BUSY_RETRY, Agenda, Entry, Outcome, Phase, Pool
from backy.scheduler.jobs.due import Past

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
DAILY = {"daily": ScheduledTag(DAY, 7)}
HOURLY = {"hourly": ScheduledTag(timedelta(hours=1), 7)}


def done(*times: datetime, tag: str = "daily") -> Past:
    """Return the past of a job that made revisions at these times."""
    return Past(START - 10 * DAY, max(times, default=None), {tag: max(times)} if times else {})


def enter(agenda: Agenda, name: str, past: Past, now: datetime = START, duration: float | None = 1) -> Entry:
    agenda.add(name, DAILY, past.since)
    agenda.learn(name, past, duration, now)
    return agenda.entries[name]


@pytest.fixture
def agenda() -> Agenda:
    return Agenda(1)


def test_a_job_runs_once_when_its_time_has_come(agenda: Agenda) -> None:
    vm = enter(agenda, "vm", done(START))
    time = next_ideal(DAY, vm.shift, START)
    assert agenda.next_time() == time
    assert agenda.start(time - MINUTE) == []
    assert str(vm) == "waiting for deadline"
    assert agenda.start(time) == [vm]
    assert vm.due == (time, ("daily",))
    assert str(vm) == "running (fast)"
    assert agenda.start(time + DAY) == []
    agenda.finish(vm, Outcome.DONE, done(time), 1, time + MINUTE)
    assert agenda.next_time() == time + DAY


def test_a_job_whose_past_is_unknown_does_not_run(agenda: Agenda) -> None:
    vm = agenda.add("vm", DAILY, START - 10 * DAY)
    agenda.trigger("vm", START)
    assert agenda.start(START) == []
    assert (str(vm), vm.due) == ("looking at its revisions", None)
    agenda.learn("vm", done(START), 1, START)
    assert agenda.start(START) == [vm]


def test_failures_are_repeated_after_longer_and_longer_pauses(agenda: Agenda) -> None:
    vm, now, pauses = enter(agenda, "vm", done()), START, []
    for _ in range(10):
        (running,) = agenda.start(now)
        agenda.finish(running, Outcome.FAILED, vm.past, None, now)
        assert str(vm) == "failed"
        pauses.append((agenda.next_time() - now) // MINUTE)
        now = agenda.next_time()
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 360, 360]
    agenda.start(now)
    agenda.finish(vm, Outcome.DONE, done(now), 1, now)
    assert (vm.failures, vm.phase, agenda.next_time()) == (0, Phase.WAITING, next_ideal(DAY, vm.shift, now))


def test_a_run_now_resets_no_failures(agenda: Agenda) -> None:
    vm = enter(agenda, "vm", done())
    agenda.start(START)
    agenda.finish(vm, Outcome.FAILED, vm.past, None, START)
    assert agenda.trigger("vm", START)
    assert agenda.start(START) == [vm]
    assert not agenda.trigger("vm", START)
    agenda.finish(vm, Outcome.FAILED, vm.past, None, START)
    assert (vm.failures, agenda.next_time()) == (2, START + 4 * MINUTE)


def test_a_run_now_of_a_job_that_is_not_due_takes_the_tags_of_its_next_run(agenda: Agenda) -> None:
    vm = enter(agenda, "vm", done(START))
    agenda.trigger("vm", START)
    assert agenda.start(START) == [vm]
    assert vm.due == (START, ("daily",))
    agenda.finish(vm, Outcome.FAILED, vm.past, None, START)
    assert agenda.start(START + 2 * MINUTE) == [vm]


def test_a_run_now_may_have_tags_of_its_own_once(agenda: Agenda) -> None:
    vm = enter(agenda, "vm", done(START - 5 * DAY))
    agenda.trigger("vm", START, ["manual:x"])
    agenda.learn("vm", vm.past, 1, START)
    assert agenda.start(START) == [vm]
    assert vm.due == (START, ("manual:x",))
    agenda.finish(vm, Outcome.FAILED, vm.past, 1, START)
    assert vm.due == (START + 2 * MINUTE, ("daily",))
    agenda.trigger("vm", START, ["manual:x"])
    agenda.start(START)
    agenda.finish(vm, Outcome.DONE, Past(vm.past.since, START, {**vm.past.tags, "manual:x": START}), 1, START)
    assert agenda.start(START) == [vm], "what was due is due"
    assert vm.due == (START, ("daily",))


def test_tags_that_wait_for_a_slot_are_not_lost_by_another_question(agenda: Agenda) -> None:
    vm = enter(agenda, "vm", done())
    for tags in ["manual:x"], ["manual:b", "manual:x"], []:  # the last one as by `runall`
        agenda.trigger("vm", START, tags)
    assert agenda.start(START) == [vm]
    assert vm.due == (START, ("manual:b", "manual:x"))


def test_a_repository_that_is_busy_is_no_failure(agenda: Agenda) -> None:
    vm = enter(agenda, "vm", done())
    agenda.start(START)
    agenda.finish(vm, Outcome.BUSY, vm.past, None, START)
    assert (vm.failures, str(vm), agenda.next_time()) == (0, "waiting for deadline", START + BUSY_RETRY)
    agenda.learn("vm", done(START), 1, START + MINUTE)
    assert agenda.next_time() == next_ideal(DAY, vm.shift, START + MINUTE)


@pytest.mark.parametrize("failures", [0, 1])
def test_a_run_that_was_cancelled_waits_for_its_schedule_and_misses_nothing(agenda: Agenda, failures: int) -> None:
    vm = enter(agenda, "vm", done(START - 5 * DAY))
    for outcome in [Outcome.FAILED] * failures + [Outcome.CANCELLED]:
        agenda.trigger("vm", START)
        assert agenda.start(START) == [vm]
        agenda.finish(vm, outcome, vm.past, 1, START)
    time = next_ideal(DAY, vm.shift, START)
    assert (vm.failures, agenda.next_time(), vm.due) == (failures, time, (time, ("daily",)))
    agenda.trigger("vm", START)
    assert agenda.start(START) == [vm], "an operator does not wait"
    agenda.finish(vm, Outcome.CANCELLED, vm.past, 1, START)
    assert agenda.start(time - MINUTE) == []
    assert agenda.start(time) == [vm]
    assert vm.due == (time, ("daily",))


def test_a_success_of_somebody_else_ends_failures(agenda: Agenda) -> None:
    vm = enter(agenda, "vm", done())
    agenda.start(START)
    agenda.finish(vm, Outcome.FAILED, vm.past, None, START)
    agenda.learn("vm", done(), None, START)
    assert vm.failures == 1
    agenda.learn("vm", done(START), 1, START)
    assert (vm.failures, vm.phase) == (0, Phase.WAITING)


def test_what_is_learned_of_a_job_that_waits_for_a_slot_may_take_it_out_of_the_queue(agenda: Agenda) -> None:
    first, second = enter(agenda, "first", done()), enter(agenda, "second", done())
    assert agenda.start(START) == [first]
    assert (str(second), agenda.queued(Pool.FAST)) == ("waiting for worker slot (fast)", 1)
    agenda.learn("second", done(START), 1, START)
    assert agenda.queued(Pool.FAST) == 0
    agenda.finish(first, Outcome.DONE, done(START), 1, START)
    assert agenda.start(START) == []


def test_slow_jobs_and_new_ones_have_slots_of_their_own(agenda: Agenda) -> None:
    names = {"new": None, "slow": 600, "fast": 599.9, "also fast": 1}
    entries = {name: enter(agenda, name, done(), duration=duration) for name, duration in names.items()}
    started = agenda.start(START)
    assert {str(entry) for entry in started} == {"running (fast)", "running (slow)"}
    assert agenda.running(Pool.FAST) == agenda.running(Pool.SLOW) == 1
    assert {str(entry) for entry in entries.values() if entry not in started} == {
        "waiting for worker slot (fast)",
        "waiting for worker slot (slow)",
    }


def test_who_is_nearest_to_missing_the_service_level_goes_first(agenda: Agenda) -> None:
    pasts = {"a": 3 * DAY, "b": 5 * DAY, "c": 2 * DAY}
    for name, age in pasts.items():
        enter(agenda, name, done(START - age))
    agenda.add("d", HOURLY, START)
    agenda.learn("d", done(START - 5 * DAY, tag="hourly"), 1, START)
    order = []
    while started := agenda.start(START):
        order += [entry.name for entry in started]
        agenda.finish(
            started[0], Outcome.DONE, done(START, tag="hourly" if started[0].name == "d" else "daily"), 1, START
        )
    assert order == ["d", "b", "a", "c"]


def test_who_is_wanted_now_goes_before_all_others(agenda: Agenda) -> None:
    enter(agenda, "late", done(START - 9 * DAY))
    enter(agenda, "wanted", done(START))
    agenda.trigger("wanted", START)
    assert [entry.name for entry in agenda.start(START)] == ["wanted"]


def test_slots_may_be_added_and_taken_away(agenda: Agenda) -> None:
    for name in "abcd":
        enter(agenda, name, done())
    assert len(agenda.start(START)) == 1
    agenda.worker_limit = 3
    started = agenda.start(START)
    assert len(started) == 2
    agenda.worker_limit = 1
    for entry in started:
        agenda.finish(entry, Outcome.DONE, done(START), 1, START)
        assert agenda.start(START) == []


def test_a_job_that_is_gone_keeps_its_slot_until_it_has_ended(agenda: Agenda) -> None:
    gone, other = enter(agenda, "gone", done()), enter(agenda, "other", done())
    assert agenda.start(START) == [gone]
    agenda.remove("gone")
    assert agenda.start(START) == []
    agenda.finish(gone, Outcome.FAILED, done(), None, START)
    assert agenda.start(START) == [other]
    assert [entry.name for entry in agenda.entries.values()] == ["other"]
    assert agenda.next_time() is None


def test_a_job_that_is_gone_while_it_waits_is_not_run(agenda: Agenda) -> None:
    enter(agenda, "running", done())
    enter(agenda, "queued", done())
    enter(agenda, "waiting", done(START))
    running = agenda.start(START)[0]
    agenda.remove("queued")
    agenda.remove("waiting")
    agenda.finish(running, Outcome.DONE, done(START), 1, START)
    assert agenda.start(START + 100 * DAY) == [running]


def test_another_schedule_is_another_time(agenda: Agenda) -> None:
    vm = enter(agenda, "vm", done(START))
    agenda.reschedule("vm", HOURLY, START)
    assert agenda.start(START) == [vm]
    assert vm.due == (START, ("hourly",))


def test_a_clock_that_is_set_back_lets_nobody_run_too_early(agenda: Agenda) -> None:
    other, vm = enter(agenda, "other", done()), enter(agenda, "vm", done(START))
    assert agenda.start(START) == [other]
    agenda.start(START + 2 * DAY)
    assert vm.phase is Phase.QUEUED
    agenda.finish(other, Outcome.DONE, done(START), 1, START)
    assert agenda.start(START) == []
    assert vm.phase is Phase.WAITING


@given(st.data())
def test_nothing_gets_lost_and_slots_are_kept_whatever_happens(data: st.DataObject) -> None:
    agenda, now, running = Agenda(2), START, []
    choose: Callable = data.draw
    for name in "abcde":
        enter(agenda, name, done(), duration=choose(st.sampled_from([None, 1, 1000])))
    for _ in range(choose(st.integers(1, 30))):
        now += choose(st.sampled_from([timedelta(), MINUTE, timedelta(hours=7), 2 * DAY]))
        running += agenda.start(now)
        match choose(st.sampled_from(["finish", "trigger", "learn", "wait"])):
            case "finish" if running:
                entry = running.pop(choose(st.integers(0, len(running) - 1)))
                outcome = choose(st.sampled_from(Outcome))
                agenda.finish(entry, outcome, done(now) if outcome is Outcome.DONE else entry.past, 1, now)
            case "trigger":
                agenda.trigger(choose(st.sampled_from("abcde")), now)
            case "learn":
                agenda.learn(choose(st.sampled_from("abcde")), done(now), 1, now)
        assert all(agenda.running(pool) <= 2 for pool in Pool)
        assert {entry for entry in agenda.entries.values() if entry.phase is Phase.RUNNING} == set(running)
    while running:
        agenda.finish(running.pop(), Outcome.DONE, done(now), 1, now)
    now += 2 * DAY
    seen = set()
    while started := agenda.start(now):
        for entry in started:
            seen.add(entry.name)
            agenda.finish(entry, Outcome.DONE, done(now), 1, now)
    assert seen == set("abcde")


def test_what_waited_for_a_slot_does_not_wait_again_for_a_run_that_is_near(agenda: Agenda) -> None:
    blocker = enter(agenda, "blocker", done(START - 2 * DAY))
    assert agenda.start(START) == [blocker]
    agenda.add("vm", HOURLY, START - DAY)
    run = next_ideal(timedelta(hours=1), agenda.entries["vm"].shift, START)
    agenda.learn("vm", done(run - timedelta(hours=1), tag="hourly"), 1, START)
    assert agenda.start(run) == []
    late = run + timedelta(minutes=58)
    agenda.finish(blocker, Outcome.DONE, done(late), 1, late)

    assert agenda.start(late) == [agenda.entries["vm"]]
    assert agenda.entries["vm"].due == (late, ("hourly",))


def test_jobs_follow_a_clock_that_is_set(agenda: Agenda) -> None:
    vm, failing = enter(agenda, "vm", done(START)), enter(agenda, "failing", done())
    ahead = START + 60 * DAY
    agenda.start(ahead)
    agenda.finish(failing, Outcome.FAILED, failing.past, None, ahead)
    agenda.learn("vm", done(ahead), 1, ahead)
    assert agenda.next_time() == ahead + 2 * MINUTE

    agenda.learn("vm", done(START), 1, START + MINUTE)
    agenda.set_clock(MINUTE - 60 * DAY, START + MINUTE)
    assert failing.due.time == START + 3 * MINUTE
    assert vm.due.time == next_ideal(DAY, vm.shift, START + MINUTE)


def test_a_paused_job_runs_when_its_pause_is_over_or_ended_or_somebody_asks(agenda: Agenda) -> None:
    vm = enter(agenda, "vm", done(START))
    time = next_ideal(DAY, vm.shift, START)
    agenda.pause("vm", time + 3 * DAY, START)
    assert (str(vm), agenda.next_time()) == ("paused", time + 3 * DAY)
    assert agenda.start(time + 2 * DAY) == []
    agenda.pause("vm", None, time + 2 * DAY)
    assert agenda.start(time + 2 * DAY) == [vm]
    agenda.pause("vm", time + 9 * DAY, time + 2 * DAY)
    assert str(vm) == "running (fast)"
    agenda.finish(vm, Outcome.FAILED, done(START), 1, time + 2 * DAY)
    assert (str(vm), agenda.start(time + 8 * DAY)) == ("paused", [])
    agenda.trigger("vm", time + 8 * DAY)
    assert agenda.start(time + 8 * DAY) == [vm]
    agenda.finish(vm, Outcome.DONE, done(time + 8 * DAY), 1, time + 8 * DAY)
    assert agenda.start(time + 9 * DAY) == [vm]


def test_a_pause_that_ends_before_a_job_is_due_delays_nothing(agenda: Agenda) -> None:
    vm = enter(agenda, "vm", done(START))
    time = next_ideal(DAY, vm.shift, START)
    agenda.pause("vm", time - MINUTE, START)
    assert (str(vm), agenda.next_time()) == ("waiting for deadline", time)


NIGHT = Hours((time(22), time(6), Zone("UTC")))


def test_a_job_with_hours_begins_within_them_only(agenda: Agenda) -> None:
    entry = enter(agenda, "vm", done(START - 3 * DAY), START + DAY / 2)
    agenda.reschedule("vm", DAILY, START + DAY / 2, NIGHT)
    assert entry.due.time == agenda.next_time() == START + timedelta(hours=22)
    assert agenda.start(START + timedelta(hours=21, minutes=59)) == []
    assert agenda.start(START + timedelta(hours=22)) == [entry]


def test_hours_that_are_over_end_the_waiting_for_a_slot(agenda: Agenda) -> None:
    first, second = (enter(agenda, name, done(START - 3 * DAY), START) for name in ("first", "second"))
    for entry in (first, second):
        agenda.reschedule(entry.name, DAILY, START, NIGHT)
    late = START + timedelta(hours=6)
    (runs,) = agenda.start(START)
    waits = second if runs is first else first
    agenda.finish(runs, Outcome.DONE, done(START), 1, late)
    assert agenda.start(late) == []
    assert (waits.phase, waits.due.time) == (Phase.WAITING, START + timedelta(hours=22))
    # but not for an operator
    agenda.trigger(waits.name, late)
    assert agenda.start(late) == [waits]


def test_what_failed_is_tried_again_within_its_hours(agenda: Agenda) -> None:
    entry = enter(agenda, "vm", done(START - 3 * DAY), START + timedelta(hours=5, minutes=59))
    entry.hours = NIGHT
    assert agenda.start(START + timedelta(hours=5, minutes=59)) == [entry]
    agenda.finish(entry, Outcome.FAILED, done(START - 3 * DAY), 1, START + timedelta(hours=6))
    assert (entry.phase, entry.due.time) == (Phase.FAILED, START + timedelta(hours=22))


@pytest.mark.parametrize(
    ("interval", "hours", "expected"),
    [
        (timedelta(hours=1), None, timedelta(hours=1.5)),
        # from 06:00 on nobody expects any
        (timedelta(hours=1), NIGHT, timedelta(hours=22.5)),
        (DAY, NIGHT, 1.5 * DAY),
    ],
)
def test_a_job_is_late_by_what_its_hours_allow(
    agenda: Agenda, interval: timedelta, hours: Hours, expected: timedelta
) -> None:
    entry = agenda.add("vm", {"daily": ScheduledTag(interval, 7)}, START)
    entry.hours = hours
    begin = START + timedelta(hours=5)
    assert entry.late(done(begin)) == (START if hours and interval < DAY else begin) + expected


def test_hours_do_not_lengthen_an_sla_that_somebody_has_set(agenda: Agenda) -> None:
    entry = agenda.add("vm/a", {"daily": ScheduledTag(timedelta(hours=1), 7)}, START)
    entry.hours, entry.sla = NIGHT, 1.5 * DAY
    assert entry.late(done(START)) == START + 1.5 * DAY
    entry.sla = timedelta(hours=10)
    assert entry.late(done(START)) == START + timedelta(hours=22.5)


@pytest.mark.parametrize("pool", [Pool.SCRUB, Pool.DRILL])
def test_one_at_a_time_is_scrubbed_or_tried_and_who_waits_longest_goes_first(agenda: Agenda, pool: Pool) -> None:
    agenda.worker_limit = 4
    for name, days in (("a", 70), ("b", 80), ("c", 75)):
        entry = agenda.add(name, {str(pool): ScheduledTag(60 * DAY, 1)}, START - 100 * DAY)
        entry.pool, entry.sla, entry.copied = pool, 90 * DAY, START - days * DAY
        agenda.learn(entry.name, entry.runs, None, START)
    order = []
    while started := agenda.start(START):
        (entry,) = started
        order.append(entry.name)
        entry.copied = START
        agenda.finish(entry, Outcome.DONE, entry.runs, None, START)
    assert order == ["b", "c", "a"]
