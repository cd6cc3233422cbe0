from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backy.repository.config import PluginSection, ScheduledTag
from backy.retention.schedule import Past, next_ideal
from backy.scheduler.configuration.configuration import JobEntry
from backy.scheduler.jobs.ledger import Job, Ledger
from backy.scheduler.jobs.summary import Summary
from tests.revisions import make_revision

NOW = datetime(2026, 1, 1, tzinfo=UTC)
YEAR_1970 = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def ledger_of(*names: str, interval: timedelta = DAY) -> Ledger:
    ledger = Ledger(1)
    for name in names:
        schedule = {"daily": ScheduledTag(interval, 3)}
        source = PluginSection.named("file")
        settings = JobEntry(name, source, "default", schedule, None, None, True, None, None, 1)
        ledger.jobs[name] = Job(settings, ledger.agenda.add(name, schedule, NOW - 100 * DAY), None)
    return ledger


@pytest.mark.parametrize(("interval", "seconds"), [(DAY, 300), (timedelta(seconds=10), 5), (timedelta(minutes=8), 240)])
def test_a_start_waits_for_the_clock_no_longer_than_a_run_may_be_late(interval: timedelta, seconds: int) -> None:
    assert ledger_of("vm", interval=interval).patience() == timedelta(seconds=seconds)
    assert Ledger(1).patience() == timedelta()


def test_it_waits_for_the_newest_revision_only() -> None:
    ledger = ledger_of("a", "b")
    job = ledger.jobs["b"]
    early, late = make_revision("early", NOW, ["daily"]), make_revision("late", NOW + 60 * DAY, ["daily"])
    assert ledger.ahead() is None
    ledger.learn(job, Summary(Past.of([early, late], NOW, NOW), newest=late), NOW)
    assert ledger.ahead() == "b"
    ledger.learn(job, Summary(Past.of([late, early], NOW, NOW), newest=early), NOW)
    assert ledger.ahead() is None


def test_the_spread_is_kept_when_the_clock_stays_in_1970_and_when_it_is_set() -> None:
    names = [f"vm{number}" for number in range(50)]
    ledger = ledger_of(*names)
    made = {name: next_ideal(DAY, job.entry.shift, NOW) - DAY for name, job in ledger.jobs.items()}
    for now in (YEAR_1970, NOW):
        for name, job in ledger.jobs.items():
            revision = make_revision(name, made[name], ["daily"])
            past = Past.of([revision], min(NOW - 100 * DAY, now), now)
            ledger.learn(job, Summary(past, newest=revision), now)
        ledger.agenda.set_clock(now - YEAR_1970, now)
        for job in ledger.jobs.values():
            assert job.entry.due.time == next_ideal(DAY, job.entry.shift, now)
        assert ledger.agenda.start(now) == []
