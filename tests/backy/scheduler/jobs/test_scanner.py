from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.integrity import quarantine
from backy.integrity.quarantine import Finding
from backy.repository.config import ScheduledTag
from backy.repository.repository import Repository
from backy.scheduler.configuration.configuration import JobEntry
from backy.scheduler.jobs import scanner as module
from backy.scheduler.jobs.agenda import Agenda
from backy.scheduler.jobs.ledger import Job
from backy.scheduler.jobs.scanner import Scanner
from backy.scheduler.jobs.summary import Summary, summarize

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2100, 1, 1, tzinfo=UTC)
SCHEDULE = {"daily": ScheduledTag(timedelta(days=1), 7)}


@pytest.fixture
def job() -> Callable[[str], Job]:
    def make(name: str) -> Job:
        settings = JobEntry(name, {}, "default", SCHEDULE, {}, None, True, None, None, 1)
        return Job(settings, Agenda(1).add(name, SCHEDULE, LONG_AGO), None)

    return make


def test_a_repository_in_a_few_words(repository: Repository, clock) -> None:
    Backup(repository, ("daily",), clock=clock).run()
    newest = Backup(repository, ("manual:upgrade", "weekly"), clock=clock).run()
    repository.records.write_state(newest_distrusted := _distrusted(newest))
    (repository.directory / "damaged00.rev").write_text("{}")
    finding = Finding(name="x", timestamp=clock(), cause="why")
    quarantine.keep(repository.directory, finding, None, None)

    found = summarize(repository.directory, LONG_AGO, NOW)
    assert found.newest == newest_distrusted
    assert set(found.past.tags) == {"daily", "weekly", "manual:upgrade"}
    assert (found.revisions, found.manual_tags, found.duration) == (2, ("manual:upgrade",), newest.statistics.duration)
    assert (found.distrusted, found.unreadable, found.reports) == (1, 1, 1)


def _distrusted(revision):

    return revision.changed(distrusted=True)


def test_a_job_without_revisions_is_known_since_its_repository_was_made(repository: Repository, tmp_path: Path) -> None:
    assert summarize(repository.directory, LONG_AGO, NOW).past.since == repository.since
    found = summarize(tmp_path / "nothing", LONG_AGO, NOW)
    assert (found.past.since, found.past.newest, found.revisions) == (LONG_AGO, None, 0)


def test_a_repository_that_has_not_changed_is_not_read_again(
    repository: Repository, job, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def note(directory: Path, since: datetime, limit: datetime) -> Summary:
        read.append(directory)
        return summarize(directory, since, limit)

    monkeypatch.setattr(module, "summarize", note)
    vm = job("vm")

    async def look() -> list[int]:
        scanner = Scanner(lambda _: repository.directory, lambda one, found: setattr(one, "summary", found))
        counts = []
        for again in (False, False, True):
            await scanner.look([vm], again=again)
            counts.append(len(read))
        Backup(repository, ("daily",)).run()
        await scanner.look([vm])
        scanner.close()
        return [*counts, len(read)]

    assert asyncio.run(look()) == [1, 1, 2, 3]
    assert vm.summary.revisions == 1


@pytest.mark.parametrize("trouble", [OSError(5, "Input/output error"), RecursionError("too deep")])
def test_a_repository_that_can_not_be_looked_at_is_told_once(
    job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: Exception
) -> None:
    broken = True

    def read(directory: Path, since: datetime, limit: datetime) -> Summary:
        if broken:
            raise trouble
        return summarize(directory, since, limit)

    monkeypatch.setattr(module, "summarize", read)

    async def look() -> None:
        nonlocal broken
        scanner = Scanner(lambda _: Path("/nowhere"), lambda *_: None)
        vm = job("vm")
        await scanner.look([vm])
        await scanner.look([vm])
        assert list(scanner.problems({"vm"})) == [f"vm: the repository can not be looked at: {trouble}"]
        assert list(scanner.problems(set())) == []
        broken = False
        await scanner.look([vm])
        assert list(scanner.problems({"vm"})) == []
        scanner.close()

    caplog.set_level(logging.ERROR)
    asyncio.run(look())
    assert len(caplog.records) == 1


def test_a_disk_that_hangs_does_not_stop_the_loop(job, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, end = threading.Event(), threading.Event()

    def hang(directory: Path, since: datetime, limit: datetime) -> Summary:
        hangs.set()
        end.wait()
        return summarize(directory, since, limit)

    monkeypatch.setattr(module, "summarize", hang)

    async def run() -> int:
        learned: list[Job] = []
        scanner = Scanner(lambda _: Path("/nowhere"), lambda one, _: learned.append(one))
        jobs = [job(f"vm{number}") for number in range(module.BATCH + 1)]
        scanner.add(jobs)
        task = asyncio.create_task(scanner.run(lambda: jobs, lambda: timedelta(0)))
        await asyncio.to_thread(hangs.wait)
        for _ in range(100):
            await asyncio.sleep(0)  # the loop goes round
        before = len(learned)
        end.set()
        while len(learned) < len(jobs):
            await asyncio.sleep(0)
        task.cancel()
        scanner.close()
        return before

    assert asyncio.run(run()) == 0


def test_what_is_ahead_of_the_clock_is_looked_at_again_when_the_clock_moves(repository: Repository, job) -> None:
    made = Backup(repository, ("daily",), clock=lambda: START).run()
    now = START
    vm = job("vm")

    def learn(one: Job, found: Summary) -> None:
        one.summary, one.entry.past = found, found.past

    async def look() -> list[tuple[str, ...]]:
        nonlocal now
        scanner, seen = Scanner(lambda _: repository.directory, learn, lambda: now), []
        for time in (START, START - timedelta(days=60), START - timedelta(minutes=5)):
            now = time
            await scanner.look([vm])
            seen.append(vm.entry.past.ahead)
        scanner.close()
        return seen

    assert asyncio.run(look()) == [(), (made.id,), ()]


def test_a_job_of_which_all_is_ahead_of_the_clock_is_not_known_since_the_future(repository: Repository) -> None:
    Backup(repository, ("daily",), clock=lambda: START).run()
    past = summarize(repository.directory, LONG_AGO, LONG_AGO + timedelta(days=1)).past
    assert (past.newest, past.since) == (None, LONG_AGO + timedelta(days=1))
