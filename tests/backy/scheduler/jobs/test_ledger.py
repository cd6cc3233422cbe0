from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.repository.config import JobConfig, ScheduledTag, SourceSection
from backy.repository.revision import Revision
from backy.retention.rules import next_ideal
from backy.scheduler.configuration.configuration import Configuration, Global, JobEntry
from backy.scheduler.jobs.agenda import Outcome, Phase, Result
from backy.scheduler.jobs.due import Past
from backy.scheduler.jobs.ledger import Job, Ledger
from backy.scheduler.jobs.repositories import Summary, of_newest
from backy.scheduler.monitoring.status import NO_END, Remembered
from tests.revisions import make_revision

NOW = datetime(2026, 1, 1, tzinfo=UTC)
YEAR_1970 = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def ledger_of(*names: str, interval: timedelta = DAY) -> Ledger:
    ledger = Ledger(1)
    for name in names:
        schedule = {"daily": ScheduledTag(interval, 3)}
        settings = JobEntry(Path(name), schedule, JobConfig(format=3, source=SourceSection.named("file")))
        ledger.jobs[name] = Job(settings, ledger.agenda.add(name, schedule, NOW - 100 * DAY), Remembered(job=name))
    return ledger


def summary_of(past: Past, newest: Revision, revisions: int = 1) -> Summary:
    return Summary(job="vm", past=past, revisions=revisions, last_time=past.newest, **of_newest(newest))


@pytest.mark.parametrize(("interval", "seconds"), [(DAY, 300), (timedelta(seconds=10), 5), (timedelta(minutes=8), 240)])
def test_a_start_waits_for_the_clock_no_longer_than_a_run_may_be_late(interval: timedelta, seconds: int) -> None:
    assert ledger_of("vm", interval=interval).patience() == timedelta(seconds=seconds)
    assert Ledger(1).patience() == timedelta()


def test_it_waits_for_the_newest_revision_only() -> None:
    ledger = ledger_of("a", "b")
    job = ledger.jobs["b"]
    early, late = make_revision("early", NOW, ["daily"]), make_revision("late", NOW + 60 * DAY, ["daily"])
    assert ledger.ahead() is None
    ledger.learn(job, summary_of(Past.of([early, late], NOW, NOW), late), NOW)
    assert ledger.ahead() == "b"
    ledger.learn(job, summary_of(Past.of([late, early], NOW, NOW), early), NOW)
    assert ledger.ahead() is None


def test_the_spread_is_kept_when_the_clock_stays_in_1970_and_when_it_is_set() -> None:
    names = [f"vm{number}" for number in range(50)]
    ledger = ledger_of(*names)
    made = {name: next_ideal(DAY, job.entry.shift, NOW) - DAY for name, job in ledger.jobs.items()}
    for now in (YEAR_1970, NOW):
        for name, job in ledger.jobs.items():
            revision = make_revision(name, made[name], ["daily"])
            past = Past.of([revision], min(NOW - 100 * DAY, now), now)
            ledger.learn(job, summary_of(past, revision), now)
        ledger.agenda.set_clock(now - YEAR_1970, now)
        for job in ledger.jobs.values():
            assert job.entry.due.time == next_ideal(DAY, job.entry.shift, now)
        assert ledger.agenda.start(now) == []


HOUR = timedelta(hours=1)
DONE, FAILED, BUSY = Result(Outcome.DONE), Result(Outcome.FAILED, "why"), Result(Outcome.BUSY, "busy")
HALF = Result(Outcome.DONE, "the callback")
FULL = Result(Outcome.FAILED, "no space", full=True)
WAITS = Result(Outcome.DONE, put_off=True)


@given(st.lists(st.sampled_from([DONE, FAILED, BUSY, HALF, WAITS]), min_size=1, max_size=8))
def test_what_fails_is_told_since_its_first_run_in_a_row_and_nothing_else_is(results: list[Result]) -> None:
    """A run that finds another command says nothing of those before it."""
    ledger, now = ledger_of("vm"), NOW
    since = put_off = None
    error, failures = None, 0
    for result in results:
        now += HOUR
        run_once(ledger, result, now)
        if result is BUSY:
            error = error if since else "busy"
        else:
            since = (since or now) if result.error else None
            error = result.error
            failures = failures + 1 if result is FAILED else 0
        if result in {DONE, HALF, WAITS}:
            put_off = (put_off or now) if result is WAITS else None
        (row,) = ledger.rows(now)
        assert (row.failing_since, row.error, row.failures) == (since, error, failures)
        assert row.put_off_since == put_off
        assert row.unfinished == (since is not None and failures == 0)


def test_a_job_is_full_until_a_run_finds_space_or_the_one_in_its_way_makes_a_revision() -> None:
    ledger = ledger_of("vm")
    for hour, (result, full) in enumerate([(FULL, True), (BUSY, True), (DONE, False), (FULL, True)]):
        run_once(ledger, result, NOW + hour * HOUR)
        assert next(ledger.rows(NOW + hour * HOUR)).full is full
    now, job = NOW + 5 * HOUR, ledger.jobs["vm"]
    ledger.agenda.trigger("vm", now)
    ledger.agenda.start(now)
    made = make_revision("made", now, ["daily"])
    ledger.learn(job, summary_of(Past.of([made], NOW, now), made, 1), now)
    ledger.finish(job, BUSY, now)
    assert next(ledger.rows(now)).full is False


def test_what_a_repository_takes_is_known_until_a_run_tells_something_else() -> None:
    ledger = ledger_of("vm")
    for hour, (told, known) in enumerate([((None, None),) * 2, ((7, 4),) * 2, ((None, None), (7, 4)), ((0, 0),) * 2]):
        run_once(ledger, DONE._replace(occupied=told[0], shared=told[1]), NOW + hour * HOUR)
        (row,) = ledger.rows(NOW + hour * HOUR)
        assert (row.occupied, row.shared) == known


def test_a_restart_and_a_scan_prove_nothing_of_what_failed() -> None:
    ledger = ledger_of("vm")
    made = make_revision("made", NOW, ["daily"])
    summary = summary_of(Past.of([made], NOW, NOW), made, 1)
    ledger.learn(ledger.jobs["vm"], summary, NOW)
    run_once(ledger, FAILED, NOW + HOUR)
    (row,) = ledger.rows(NOW + HOUR)

    again = Ledger(1)
    again._add(ledger.jobs["vm"].settings, row, NOW + 2 * HOUR)
    told = next(again.rows(NOW + 2 * HOUR))
    assert (told.failing_since, told.error, told.failures) == (NOW + HOUR, "why", 1)
    again.learn(again.jobs["vm"], summary, NOW + 2 * HOUR)
    told = next(again.rows(NOW + 2 * HOUR))
    assert (told.failing_since, told.error, told.failures, told.status) == (NOW + HOUR, "why", 1, "failed")

    by_hand = make_revision("by-hand", NOW + 3 * HOUR, ["daily"])
    past = Past.of([made, by_hand], NOW, NOW + 3 * HOUR)
    again.learn(again.jobs["vm"], summary_of(past, by_hand, 2), NOW + 3 * HOUR)
    told = next(again.rows(NOW + 3 * HOUR))
    assert (told.failing_since, told.error, told.failures) == (None, None, 0)


def test_a_row_does_not_contradict_itself_while_its_job_runs() -> None:
    """The scanner sees the new revision before the run ends: then all of the row is of this revision."""
    ledger = ledger_of("vm")
    job = ledger.jobs["vm"]
    old = make_revision("old", NOW - 3 * DAY, ["weekly"])
    ledger.learn(job, summary_of(Past.of([old], NOW, NOW), old, 1), NOW)
    ledger.agenda.trigger("vm", NOW)
    (entry,) = ledger.agenda.start(NOW)
    (row,) = ledger.rows(NOW + HOUR)
    assert (row.sla, row.status, row.last_time, row.running_since) == ("TOO OLD", "running (fast)", old.timestamp, NOW)
    assert (row.next_time, row.next_tags) == (None, ())
    new = make_revision("new", NOW + HOUR, ["daily"])
    ledger.learn(job, summary_of(Past.of([old, new], NOW, NOW + HOUR), new, 2), NOW + HOUR)
    assert entry.past.newest == old.timestamp
    (row,) = ledger.rows(NOW + 2 * HOUR)
    assert (row.sla, row.sla_overdue, row.last_time, row.last_tags) == ("OK", 0, new.timestamp, ("daily",))
    assert row.late_from == new.timestamp + 1.5 * DAY


def run_once(ledger: Ledger, result: Result, now: datetime) -> None:
    """Let a run of the only job end at `now` with a new revision if it succeeds."""
    (job,) = ledger.jobs.values()
    if job.entry.phase is Phase.UNKNOWN:
        ledger.learn(job, Summary(job="vm", past=Past(NOW, None, {})), now)
    ledger.agenda.trigger("vm", now)
    ledger.agenda.start(now)
    if result.outcome is Outcome.DONE:
        made = make_revision(f"made-at-{now:%d-%H}", now, ["daily"])
        ledger.learn(job, summary_of(Past.of([made], NOW, now), made, 1), now)
    ledger.finish(job, result, now)


def test_a_pause_outlasts_a_restart() -> None:
    ledger = ledger_of("vm")
    ledger.learn(ledger.jobs["vm"], summary_of(Past(NOW, None, {}), make_revision("a", NOW, ["daily"])), NOW)
    ledger.pause("vm", timedelta.max, NOW)
    (before,) = ledger.rows(NOW)
    assert (before.status, before.paused, before.next_time) == ("paused", NO_END, None)

    again = Ledger(1)
    settings = ledger.jobs["vm"].settings
    again.apply(
        Configuration(Path("backy.conf"), Global(base_dir=Path("/srv")), {}, {"vm": settings}, {}), {"vm": before}, NOW
    )
    again.learn(again.jobs["vm"], summary_of(Past(NOW, None, {}), make_revision("a", NOW, ["daily"])), NOW)
    (row,) = again.rows(NOW)
    assert (row.status, row.paused) == ("paused", NO_END)
    again.pause("vm", None, NOW)
    (row,) = again.rows(NOW)
    assert (row.status, row.paused) == ("waiting for deadline", None)
