from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time_ns

import pytest

from backy.answers.audit import adopt
from backy.answers.replay import Head
from backy.backup.backup import Backup
from backy.errors import RepositoryError
from backy.integrity import quarantine
from backy.integrity.quarantine import Finding
from backy.repository.config import JobConfig, ScheduledTag
from backy.repository.journal import Fact
from backy.repository.repository import Repository
from backy.repository.revision import Wrong
from backy.scheduler.configuration.configuration import JobEntry
from backy.scheduler.jobs import ledger as module
from backy.scheduler.jobs.agenda import Agenda
from backy.scheduler.jobs.ledger import Job, Scanner
from backy.scheduler.jobs.repositories import Audited, Summary, stamp, summarize
from backy.scheduler.monitoring.status import Remembered
from tests.unread import fail_to_read

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2100, 1, 1, tzinfo=UTC)
SCHEDULE = {"daily": ScheduledTag(timedelta(days=1), 7)}


@pytest.fixture
def job() -> Callable[..., Job]:
    def make(name: str, directory: Path | None = None) -> Job:
        settings = JobEntry(directory or Path("/nowhere", name), SCHEDULE, JobConfig(format=3))
        return Job(settings, Agenda(1).add(name, SCHEDULE, LONG_AGO), Remembered(job=name))

    return make


def test_a_repository_in_a_few_words(repository: Repository, clock) -> None:
    first = Backup(repository, ("daily",), clock=clock).run()
    repository.records.write_state(first.changed(wrong=Wrong((0,), first.timestamp)))
    newest = Backup(repository, ("manual:upgrade", "weekly"), clock=clock).run()
    repository.records.write_state(newest_distrusted := _distrusted(newest))
    (repository.directory / "damaged00.rev").write_text("{}")
    finding = Finding(name="x", timestamp=clock(), cause="why")
    quarantine.keep(repository.directory, finding, None, None)

    found = summarize(repository.directory, LONG_AGO, NOW)
    assert found.newest == newest_distrusted.id
    assert set(found.past.tags) == {"daily", "weekly", "manual:upgrade"}
    assert (found.revisions, found.manual_tags, found.last_duration) == (
        2,
        ("manual:upgrade",),
        newest.statistics.duration,
    )
    assert (found.distrusted, found.wrong, found.unreadable, found.quarantine_reports) == (1, 1, 1, 1)


def _distrusted(revision):

    return revision.changed(distrusted=True)


def test_what_was_seen_of_a_journal_is_a_witness(repository: Repository, clock, tmp_path: Path) -> None:
    vm = repository.directory
    Backup(repository, ("daily",), clock=clock).run()
    shutil.copytree(vm, tmp_path / "older", symlinks=True)
    Backup(repository, ("daily",), clock=clock).run()
    seen = summarize(vm, LONG_AGO, NOW).audited
    assert (seen.head and seen.head.number, seen.tampering) == (5, ())
    Backup(repository, ("daily",), clock=clock).run()
    assert summarize(vm, LONG_AGO, NOW, earlier=seen).audited.tampering == ()

    shutil.rmtree(vm)
    shutil.copytree(tmp_path / "older", vm, symlinks=True)
    assert summarize(vm, LONG_AGO, NOW).audited.tampering == (), "as if it had never gone on"
    found = summarize(vm, LONG_AGO, NOW, earlier=seen).audited
    assert found.tampering == ("the journal ends with line 3, and the witness saw line 5",)
    assert found.head == seen.head, "what was seen is not forgotten because of that"
    adopt(Repository.open(vm))
    found = summarize(vm, LONG_AGO, NOW, earlier=found).audited
    assert (found.tampering, found.head and found.head.number) == ((), 5)
    shutil.rmtree(vm)
    shutil.copytree(tmp_path / "older", vm, symlinks=True)
    assert summarize(vm, LONG_AGO, NOW, earlier=found).audited.tampering != (), "an old adoption excuses nothing"


def test_what_can_not_be_read_hides_nothing_and_is_looked_at_again(
    repository: Repository, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = repository.directory
    gone, unread = (Backup(repository, ("daily",), clock=clock).run() for _ in range(2))
    seen = summarize(vm, LONG_AGO, NOW)
    (vm / f"{gone.id}.rev").unlink()
    with monkeypatch.context() as patch:
        fail_to_read(patch, f"{unread.id}.state")
        found = summarize(vm, LONG_AGO, NOW, earlier=seen.audited)
    text = f"revision {gone.id} is gone, and nothing in the journal removed it"
    assert found.audited == Audited(seen.audited.head, (text,), complete=False)
    assert found.stamp != stamp(vm)


def test_another_change_within_the_same_tick_of_the_clock_is_seen(repository: Repository) -> None:
    """The two leave the same time, so what is summed up right after the first one does not count as known."""
    vm = repository.directory
    Backup(repository, ("daily",)).run()
    for seconds, known in ((1, (0, 0, 0)), (-1, None)):
        for path in (vm, vm / "journal"):
            os.utime(path, ns=(0, time_ns() + seconds * 10**9))
        assert summarize(vm, NOW, NOW).stamp == (known or stamp(vm))


def test_who_acts_at_the_moment_takes_no_verdict_back(repository: Repository) -> None:
    known = Audited(Head("id", 1, "ab"), ("why",))
    with repository.records.journal.act("tags", "revision-1", Fact()):
        assert summarize(repository.directory, LONG_AGO, NOW, earlier=known).audited == known._replace(complete=False)


def test_a_record_that_was_changed_beside_a_state_that_can_not_be_read_is_tampering(
    repository: Repository, clock
) -> None:
    revision = Backup(repository, ("daily",), clock=clock).run()
    earlier = summarize(repository.directory, LONG_AGO, NOW).audited
    record = repository.records.record_path(revision.id)
    record.unlink()
    record.write_bytes(b"something else")
    with pytest.MonkeyPatch.context() as patch:
        fail_to_read(patch, f"{revision.id}.state")
        found = summarize(repository.directory, LONG_AGO, NOW, earlier=earlier).audited
    assert found.tampering == (f"{revision.id}.rev is not the one that was written last",)
    assert not found.complete, "and all is looked at again"


def test_a_folder_in_the_place_of_a_state_is_tampering(repository: Repository, clock) -> None:
    revision = Backup(repository, ("daily",), clock=clock).run()
    path = repository.records.state_path(revision.id)
    path.unlink()
    path.mkdir()
    found = summarize(repository.directory, LONG_AGO, NOW).audited
    assert found.tampering == (f"{revision.id}.state is no regular file, or too long",)


@pytest.mark.parametrize(
    "config",
    ["type: file\nfilename: /srv/vm.img\n", "source: {type: file, filename: /srv/vm.img}\nschedule: {}\n"],
    ids=["2.2", "2.5"],
)
def test_records_of_backy_2_are_not_called_damaged(tmp_path: Path, config: str) -> None:
    """They are sound: the repository is of another version, which is told as such."""
    (tmp_path / "config").write_text(config)
    for revision_id in ("bAW2RQ7jSBDnxohcGgKXs4", "ZNJhum9tVWewAMRJucDxBZ"):
        record = "timestamp: 2026-01-01 00:00:00\nparent: ''\nstats: {duration: 1.5}\ntags: [daily]\n"
        (tmp_path / f"{revision_id}.rev").write_text(f"uuid: {revision_id}\n{record}")
    with pytest.raises(RepositoryError, match="is a repository of backy 2: "):
        summarize(tmp_path, LONG_AGO, NOW)


def test_a_damaged_record_is_counted_whatever_is_wrong_with_the_configuration(repository: Repository) -> None:
    (repository.directory / "bAW2RQ7jSBDnxohcGgKXs4.rev").write_text("damaged")
    assert summarize(repository.directory, LONG_AGO, NOW).unreadable == 1
    path = repository.directory / "config"
    path.chmod(0o600)
    path.write_text("format: 3\nstorge: x\n")
    assert summarize(repository.directory, LONG_AGO, NOW).unreadable == 1


def test_a_job_without_revisions_is_known_since_its_repository_was_made(repository: Repository, tmp_path: Path) -> None:
    assert summarize(repository.directory, LONG_AGO, NOW).past.since == repository.config.created
    found = summarize(tmp_path / "nothing", LONG_AGO, NOW)
    assert (found.past.since, found.past.newest, found.revisions) == (LONG_AGO, None, 0)


def test_a_repository_that_has_not_changed_is_not_read_again(
    repository: Repository, job, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def note(directory: Path, since: datetime, now: datetime, allowed: timedelta, earlier: Audited) -> Summary:
        read.append(directory)
        return summarize(directory, since, now, allowed, earlier)

    monkeypatch.setattr(module, "summarize", note)
    vm = job("vm", repository.directory)
    # what was made just now is read again in any case
    for path in (repository.directory, repository.directory / "journal"):
        os.utime(path, ns=(0, time_ns() - 10**9))

    async def look() -> list[int]:
        scanner = Scanner(lambda one, found: setattr(one, "summary", found))
        counts = []
        for look in (lambda: scanner.look([vm]), lambda: scanner.look([vm]), lambda: scanner.look_again(vm)):
            await look()
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

    def read(directory: Path, since: datetime, now: datetime, allowed: timedelta, earlier: Audited) -> Summary:
        if broken:
            raise trouble
        return summarize(directory, since, now, allowed, earlier)

    monkeypatch.setattr(module, "summarize", read)

    async def look() -> None:
        nonlocal broken
        scanner = Scanner(lambda *_: None)
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

    def hang(directory: Path, since: datetime, now: datetime, allowed: timedelta, earlier: Audited) -> Summary:
        hangs.set()
        end.wait()
        return summarize(directory, since, now, allowed, earlier)

    monkeypatch.setattr(module, "summarize", hang)

    async def run() -> int:
        learned: list[Job] = []
        scanner = Scanner(lambda one, _: learned.append(one))
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


def test_a_repository_that_hangs_holds_up_no_other_and_is_told(job, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, end = threading.Event(), threading.Event()

    def read(directory: Path, since: datetime, now: datetime, allowed: timedelta, earlier: Audited) -> Summary:
        if directory.name == "vm0":
            hangs.set()
            end.wait()
        return summarize(directory, since, now, allowed, earlier)

    monkeypatch.setattr(module, "summarize", read)
    monkeypatch.setattr(module, "PATIENCE", timedelta(milliseconds=1))
    monkeypatch.setattr(module, "HANGS", timedelta(milliseconds=10))

    async def run() -> None:
        learned: list[str] = []
        scanner = Scanner(lambda one, _: learned.append(one.entry.name))
        jobs = [job(f"vm{number}") for number in range(5)]
        await scanner.look(jobs)
        while len(learned) < 4:
            await asyncio.sleep(0)
        assert sorted(learned) == ["vm1", "vm2", "vm3", "vm4"]
        assert not await scanner.look_again(jobs[0])
        (problem,) = scanner.problems({"vm0"})
        assert problem.startswith("vm0: the repository can not be looked at: nothing came for 0:00:00.01")
        # none is begun while one goes on: threads would become more and more
        threads = threading.active_count()
        await scanner.look(jobs[:1])
        assert threading.active_count() == threads
        end.set()
        while "vm0" not in learned:
            await asyncio.sleep(0)
        assert list(scanner.problems({"vm0"})) == []
        scanner.close()

    asyncio.run(run())


def test_another_scan_that_begins_meanwhile_is_waited_for(job) -> None:
    async def run() -> None:
        vm, learned, lost = job("vm"), [], []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
        scanner = Scanner(lambda _, found: learned.append(found))
        # of several that wait for the same scan, each sees one that began later
        assert all(await asyncio.gather(*(scanner.look_again(vm) for _ in range(3))))
        assert (len(learned), lost) == (3, []), "one after the other"
        scanner.close()

    asyncio.run(run())


def test_what_is_ahead_of_the_clock_is_looked_at_again_when_the_clock_moves(repository: Repository, job) -> None:
    made = Backup(repository, ("daily",), clock=lambda: START).run()
    now = START
    vm = job("vm", repository.directory)

    def learn(one: Job, found: Summary) -> None:
        one.summary, one.entry.past = found, found.past

    async def look() -> list[tuple[str, ...]]:
        nonlocal now
        scanner, seen = Scanner(learn, lambda: now), []
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
