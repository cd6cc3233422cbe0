"""Scrubs as jobs of a scheduler, and hours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backy.repository.records import Records
from backy.repository.revision import Trust, utc_now
from backy.scheduler.configuration.beside import Scrub
from backy.scheduler.configuration.configuration import load
from backy.scheduler.configuration.hours import DAY
from backy.scheduler.jobs.agenda import Outcome, Result
from backy.scheduler.jobs.ledger import Job, Ledger
from backy.scheduler.monitoring.check import State, examine
from tests.backy.scheduler.test_copying import CONFIGURATION

Eventually = Callable[[Callable[[], Any]], Any]
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_damage_is_found_and_told(scheduler, eventually: Eventually) -> None:
    image = scheduler.job("vm1", scrub={"rate": "1G"})
    with image.open("r+b") as stream:
        stream.write(b"data" * 1000)
    scheduler.start()
    scheduler.ask("run", "vm1")
    (one,) = eventually(lambda: Records(scheduler.base / "vm1").history())
    first = eventually(lambda: scheduler.jobs().get("vm1/scrub"))
    assert (first.verb, first.copied, first.sla) == ("scrub", None, "OK")
    assert timedelta(days=89) < first.late_from - utc_now() < timedelta(days=90)

    scheduler.ask("run", "vm1/scrub")
    done = eventually(lambda: (job := scheduler.jobs()["vm1/scrub"]).copied and job)
    assert (done.error, done.failures, done.last_time) == (None, 0, done.copied)
    assert " 0 --rate 1073741824 -- deep" in (scheduler.base / "vm1/backy.log").read_text()
    verdict = examine(scheduler.configuration)
    assert (verdict.state, verdict.summary) == (State.OK, "1 job and 1 scrub within SLA")

    (path,) = (scheduler.base / "vm1").glob("chunks/??/*")
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    scheduler.ask("run", "vm1/scrub")
    found = eventually(lambda: (job := scheduler.jobs()["vm1/scrub"]).error and job)
    # to read all again at once would not help
    assert timedelta(days=7) < found.next_time - utc_now() < timedelta(days=8)
    assert (found.failures, found.copied) == (1, done.copied)
    assert "1 chunk is damaged" in found.error
    assert Records(scheduler.base / "vm1").read(one.id).trust is Trust.DISTRUSTED
    eventually(lambda: any("vm1/scrub: fails since" in line for line in examine(scheduler.configuration).details))


def test_what_has_never_succeeded_fails_after_a_restart_still(tmp_path: Path) -> None:
    path = tmp_path / "backy.conf"
    path.write_text(CONFIGURATION.replace("copies: ", "scrub: {{}}, copies: ").format(", copies: {a: {to: /x}}"))
    configuration, names = load(path), ["vm/a", "vm/scrub"]
    before, after, later = Ledger(2), Ledger(2), NOON + timedelta(days=70)
    before.apply(configuration, {}, NOON)
    for name in names:
        before.agenda.trigger(name, later)
    assert {entry.name for entry in before.agenda.start(later)} == {*names}
    for name in names:
        before.finish(before.jobs[name], Result(Outcome.FAILED, "no"), later)
    after.apply(configuration, {row.job: row for row in before.rows(later)}, later)
    assert [row.failures for row in after.rows(later) if row.job in names] == [1, 1]


def test_each_job_has_its_hours_and_its_scrub(tmp_path: Path) -> None:
    content = CONFIGURATION.replace(
        "copies: ", 'scrub: {{sla: 60d}}, hours: "22:00-06:00", time-zone: Europe/Berlin, copies: '
    )
    path = tmp_path / "backy.conf"
    path.write_text(
        content.format(', time-zone: UTC, scrub: {hours: "10:00-16:00"}, copies: {a: {to: /x, hours: "02:00-03:00"}}')
    )
    jobs = load(path).jobs
    assert {name: (job.verb, str(job.hours), str(job.hours[2])) for name, job in jobs.items()} == {
        "vm": ("backup", "22:00-06:00", "UTC"),
        "vm/a": ("push", "02:00-03:00", "UTC"),
        "vm/scrub": ("scrub", "10:00-16:00", "UTC"),
    }
    assert jobs["vm/scrub"].schedule["scrub"].interval == timedelta(days=60)
    path.write_text(content.format(""))
    jobs = load(path).jobs
    assert {str(job.hours[2]) for job in jobs.values()} == {"Europe/Berlin"}
    assert jobs["vm/scrub"].beside == Scrub(sla=timedelta(days=60))


def test_hours_that_are_too_short_are_told_and_a_push_waits_for_its_own(tmp_path: Path) -> None:
    path = tmp_path / "backy.conf"
    path.write_text(
        CONFIGURATION.format(', hours: "12:00-14:00", time-zone: UTC, copies: {a: {to: /x, hours: "02:00-03:00"}}')
    )
    ledger = Ledger(1)
    configuration = load(path)
    ledger.apply(configuration, {}, NOON)
    job = ledger.jobs["vm"]
    assert [*ledger.crowded()] == []
    job.known.last_duration = 3 * 3600.0
    assert [*ledger.crowded()] == ["the slow backups of a day take 3:00:00, which does not fit into 12:00-14:00"]
    assert ledger.pushed_from(job, NOON) == []
    assert ledger.pushed_from(job, NOON + timedelta(hours=14)) == ["vm/a"]
    ledger.apply(configuration._replace(jobs={"vm": job.settings._replace(hours=None)}), {}, NOON)
    assert [*ledger.crowded()] == []


def scrubbing(path: Path, hours: str) -> tuple[Ledger, Job]:
    path.write_text(CONFIGURATION.format(f', scrub: {{}}, hours: "{hours}", time-zone: UTC'))
    ledger = Ledger(1)
    ledger.apply(load(path), {}, NOON - 70 * DAY)
    return ledger, ledger.jobs["vm/scrub"]


def test_a_scrub_ends_with_its_hours_and_nothing_else_does(tmp_path: Path) -> None:
    ledger, job = scrubbing(tmp_path / "backy.conf", "12:00-14:00")
    end = (NOON + timedelta(hours=2)).timestamp()
    assert ledger.round(job, NOON) == ["--round", NOON.isoformat(), str(end)]
    assert ledger.round(ledger.jobs["vm"], NOON) == []
    ledger, job = scrubbing(tmp_path / "backy.conf", "00:00-24:00")
    assert ledger.round(job, NOON) == ["--round", NOON.isoformat(), "0"]


def test_what_was_read_in_several_nights_counts_from_the_first_one_on(tmp_path: Path) -> None:
    ledger, job = scrubbing(tmp_path / "backy.conf", "12:00-14:00")
    for day, (outcome, copied) in enumerate(
        [(Outcome.BUSY, NOON - 70 * DAY), (Outcome.BUSY, NOON - 70 * DAY), (Outcome.DONE, NOON)]
    ):
        now = NOON + day * DAY
        assert job.entry in ledger.agenda.start(now)
        assert ledger.round(job, now)[1] == NOON.isoformat()
        ledger.finish(job, Result(outcome), now)
        assert job.entry.copied == copied
    assert job.known.begun is None
    ledger.set_clock(-9 * DAY, NOON - 7 * DAY)
    assert job.entry.copied == NOON - 7 * DAY, "nobody knows better, and it is not ahead of the clock"


def test_a_pause_without_end_has_no_next_run(tmp_path: Path) -> None:
    ledger, _ = scrubbing(tmp_path / "backy.conf", "12:00-14:00")
    ledger.pause("vm/scrub", timedelta.max, NOON)
    assert {row.job: row.next_time for row in ledger.rows(NOON)}["vm/scrub"] is None
