"""Copies as jobs of a scheduler: those that are pushed after each backup, and those that are pulled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backy.errors import ConfigError
from backy.mount.tree import Forest
from backy.repository.config import load_job
from backy.repository.records import Records
from backy.repository.revision import utc_now
from backy.scheduler.configuration.configuration import load
from backy.scheduler.jobs.agenda import Agenda, Outcome, Phase, Pool
from backy.scheduler.monitoring.check import examine
from tests.backy.scheduler.jobs.test_agenda import DAILY, DAY, MINUTE, START, done

Eventually = Callable[[Callable[[], Any]], Any]


def ids(directory: Path) -> set[str]:
    return Records(directory).ids()


def test_a_copy_is_pushed_after_each_backup(scheduler, backy, eventually: Eventually) -> None:
    there = scheduler.folder / "drawer/vm1"
    scheduler.job("vm1", copies={"drawer": {"to": f"{there.parent}/", "sla": "1d", "rate": "100M"}})
    scheduler.start()
    scheduler.ask("run", "vm1")
    failed = eventually(lambda: (job := scheduler.jobs()["vm1/drawer"]).failures and job)
    assert f"there is no folder {there}: is its disk mounted?" in failed.error
    assert timedelta() < failed.next_time - utc_now() <= timedelta(minutes=2)
    # a failing copy is no failing backup
    assert scheduler.jobs()["vm1"].error is None

    assert backy("-b", there, "pull", scheduler.base / "vm1").code == 0
    scheduler.ask("run", "vm1")
    eventually(lambda: ids(there) == ids(scheduler.base / "vm1") and len(ids(there)) == 2)
    job = eventually(lambda: (job := scheduler.jobs()["vm1/drawer"]).copied and job)
    assert (job.failures, job.error, job.copy, job.last_time) == (0, None, str(there), job.copied)
    verdict = examine(scheduler.configuration)
    assert verdict.summary.startswith("1 job and 1 copy within SLA")
    log = (scheduler.base / "vm1/backy.log").read_text()
    assert f"push --rate 104857600 -- {there}\n" in log


def test_what_another_server_has_is_pulled(scheduler, backy, eventually: Eventually) -> None:
    origin = scheduler.folder / "origin/vm1"
    image = scheduler.job("vm1")
    assert backy("-b", origin, "init", "file", image).code == 0
    for tags in ("manual:first", "manual:second"):
        assert backy("-b", origin, "backup", tags).code == 0
    scheduler.content["jobs"]["vm1"] = {"pull": str(origin), "schedule": "default", "sla": "2d", "storage": "chunked"}
    scheduler.start()
    scheduler.ask("run", "vm1")
    eventually(lambda: scheduler.jobs()["vm1"].copied)
    assert ids(scheduler.base / "vm1") == ids(origin)
    config = load_job(scheduler.base / "vm1/config")
    assert (config.source, list(config.schedule)) == (None, ["daily"])
    job = eventually(lambda: (job := scheduler.jobs()["vm1"]).revisions == 2 and job)
    assert (job.failures, job.error, job.copy, job.sla) == (0, None, str(origin), "OK")

    # nothing new is no failure
    scheduler.ask("run", "vm1")
    eventually(lambda: scheduler.jobs()["vm1"].copied > job.copied)
    assert scheduler.jobs()["vm1"].failures == 0


def test_a_machine_with_several_disks_is_pulled_as_one(scheduler, backy, eventually: Eventually) -> None:
    origin = scheduler.folder / "origin/web"
    origin.mkdir(parents=True)
    disks = {name: f"{{source: {{type: file, filename: {scheduler.job(name)}}}}}" for name in ("root", "data")}
    (origin / "config").write_text(f"format: 3\ndisks: {{root: {disks['root']}, data: {disks['data']}}}\n")
    assert backy("-b", origin, "backup", "manual:first").code == 0
    scheduler.content["jobs"] = {"web": {"pull": str(origin), "schedule": "default"}}
    scheduler.start()
    for _ in range(2):
        before = scheduler.jobs()["web"].copied
        scheduler.ask("run", "web")
        eventually(lambda before=before: scheduler.jobs()["web"].copied != before)
        assert scheduler.jobs()["web"].error is None
    assert "  - schedule" not in (scheduler.base / "web/config").read_text()
    assert "daily:" in (scheduler.base / "web/config").read_text()
    assert eventually(lambda: scheduler.jobs()["web"].revisions) == 1


def copying(agenda: Agenda, name: str = "vm/offsite", sla: timedelta | None = None) -> Any:
    entry = agenda.add(name, DAILY, START - 10 * DAY)
    entry.pool, entry.sla = Pool.COPY, sla
    agenda.learn(name, done(START), None, START)
    return entry


def test_a_copy_is_due_by_when_it_was_copied_last() -> None:
    agenda = Agenda(1)
    copy = copying(agenda)
    # never copied: at once, however new the revisions are
    assert agenda.start(START) == [copy]
    assert str(copy) == "running (copy)"
    copy.copied = START
    agenda.finish(copy, Outcome.DONE, done(START), None, START + MINUTE)
    assert agenda.start(START + MINUTE) == []
    assert START < agenda.next_time() <= START + DAY


def test_a_copy_waits_for_no_backup_and_fails_as_one() -> None:
    agenda = Agenda(1)
    agenda.add("vm", DAILY, START - 10 * DAY)
    agenda.learn("vm", done(START - 3 * DAY), 1, START)
    copy = copying(agenda)
    assert {entry.name for entry in agenda.start(START)} == {"vm", "vm/offsite"}
    agenda.finish(copy, Outcome.FAILED, done(START), None, START)
    assert (copy.phase, copy.failures, copy.due.time) == (Phase.FAILED, 1, START + 2 * MINUTE)
    assert agenda.start(START + 2 * MINUTE) == [copy]
    copy.copied = START + 2 * MINUTE
    agenda.finish(copy, Outcome.DONE, done(START), None, START + 3 * MINUTE)
    assert (copy.phase, copy.failures, copy.pool) == (Phase.WAITING, 0, Pool.COPY)


@pytest.mark.parametrize(("sla", "allowed"), [(None, 1.5 * DAY), (timedelta(hours=3), timedelta(hours=3))])
def test_how_old_a_copy_may_be(sla: timedelta | None, allowed: timedelta) -> None:
    entry = copying(Agenda(1), sla=sla)
    assert entry.late(entry.past) == START + allowed


CONFIGURATION = """
global: {{base-dir: /srv, copies: {{offsite: {{to: "ssh://two/", tags: [daily]}}}}}}
schedules: {{default: {{daily: {{interval: 1d, keep: 3}}}}}}
jobs:
  vm: {{schedule: default, source: {{type: file, filename: /x}}{}}}
"""


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", {"vm": None, "vm/offsite": "ssh://two/vm"}),
        (", copies: {}", {"vm": None}),
        (", copies: {a: {to: /mnt/vm}, b: {to: /mnt/}}", {"vm": None, "vm/a": "/mnt/vm", "vm/b": "/mnt/vm"}),
    ],
)
def test_copies_of_all_jobs_and_of_one(tmp_path: Path, keys: str, expected: dict[str, str | None]) -> None:
    (tmp_path / "backy.conf").write_text(CONFIGURATION.format(keys))
    jobs = load(tmp_path / "backy.conf").jobs
    assert {name: job.copy.to if job.copy else None for name, job in jobs.items()} == expected


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (", copies: {'a/b': {to: /x}}", "'a/b' can be no"),
        (", copies: {a: {}}", "the key 'to' is missing"),
        (", copies: {scrub: {to: /x}}", "'scrub' is no name of a copy"),
        (", hours: 22-6", "jobs.vm.hours: expected hours such as '22:00-06:00', got '22-6'"),
        (", time-zone: Berlin", "jobs.vm.time-zone: there is no time zone 'Berlin': write one as"),
        (", scrub: {to: light}", "jobs.vm.scrub: object contains unknown field `to`"),
        (", sla: 2h", "jobs.vm.sla: goes with 'pull'; each of 'copies' has its own"),
        (", pull: ssh://two/vm", "a job has a 'source', 'disks' or 'pull', and not two of them: source, pull"),
    ],
)
def test_what_copies_can_not_be(tmp_path: Path, keys: str, problem: str) -> None:
    (tmp_path / "backy.conf").write_text(CONFIGURATION.format(keys))
    with pytest.raises(ConfigError, match=problem):
        load(tmp_path / "backy.conf")


def test_a_mount_of_all_jobs_shows_no_copies_as_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backy) -> None:
    (tmp_path / "backy.conf").write_text(CONFIGURATION.format(""))
    shown: list[Forest] = []
    monkeypatch.setattr("backy.mount.serve.serve", lambda tree, *_, **__: shown.append(tree))
    assert backy("mount", "-f", "-c", tmp_path / "backy.conf", tmp_path).code == 0
    assert list(shown[0]._directories) == ["vm"]
