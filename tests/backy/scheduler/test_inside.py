"""A scheduler in this process, with real children: what only its inside shows."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backy.errors import BackyError
from backy.groups.forget import forget
from backy.plugins.events import Events
from backy.repository.config import dump_job
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.retention.purge import purge
from backy.scheduler.configuration.configuration import load
from backy.scheduler.daemon import Daemon
from backy.scheduler.jobs import runner
from backy.scheduler.jobs.agenda import Phase
from backy.scheduler.jobs.ledger import Job
from backy.scheduler.monitoring import reporter
from backy.scheduler.monitoring.reporter import Notifier
from backy.scheduler.monitoring.status import DiskStatus, left_before, read
from backy.scheduler.process import children
from backy.scheduler.process.base_directory import SchedulerRunningError, held
from backy.system.locking import BACKUP_LOCK, exclusive

Scenario = Callable[[Daemon], Awaitable[Any]]


@pytest.fixture
def inside(scheduler) -> Callable[..., None]:
    """Run a scheduler and, beside it, `scenario(daemon)`; then end it."""

    def run(scenario: Scenario, program: Path | None = None, clock: Callable[[], datetime] = utc_now) -> None:
        scheduler.write()
        configuration = load(scheduler.configuration)
        backy = [str(program or Path(sys.executable).with_name("backy"))]

        async def schedule() -> None:
            with held(configuration.settings.base_dir) as base:
                daemon = Daemon(configuration, base, backy, Notifier(None, timedelta(seconds=1)), clock)
                work = asyncio.create_task(daemon.run(left_before(configuration.settings.status_path)))
                try:
                    await until(lambda: known(daemon))
                    await scenario(daemon)
                finally:
                    daemon._stop.set()
                    await work

        asyncio.run(schedule())

    return run


def known(daemon: Daemon) -> bool:
    """Tell whether all jobs were entered and looked at, and the scheduler works."""
    jobs = len(daemon.ledger.jobs) == len(daemon.configuration.jobs)
    return bool(
        jobs
        and daemon._access._listens
        and all(one.phase is not Phase.UNKNOWN for one in daemon.ledger.agenda.entries.values())
    )


async def until(true: Callable[[], Any]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def run(daemon: Daemon, name: str) -> Job:
    """Run a job to its end."""
    job = daemon.ledger.jobs[name]
    daemon.trigger([name])
    await until(lambda: not job.entry.urgent)
    return job


def test_a_run_with_all_that_follows(scheduler, inside) -> None:
    callback = scheduler.folder / "callback"
    callback.write_text("#!/bin/sh\necho called with $1\ngrep -c revisions\n")
    callback.chmod(0o700)
    scheduler.content["global"] |= {
        "backup-completed-callback": str(callback),
        "metrics-file": str(scheduler.folder / "backy.prom"),
    }
    scheduler.job("vm1")

    async def scenario(daemon: Daemon) -> None:
        job = await run(daemon, "vm1")
        assert (job.known.error, job.entry.failures, job.summary.revisions) == (None, 0, 1)
        await until(lambda: read(scheduler.base / "status").jobs[0].revisions == 1)

    inside(scenario)
    assert "called with vm1\n1\n" in (scheduler.base / "vm1/backy.log").read_text()
    assert 'backy_job_revisions{job="vm1"} 1' in (scheduler.folder / "backy.prom").read_text()


def test_a_tag_that_looks_like_an_option_is_a_tag(scheduler, inside) -> None:
    scheduler.content["schedules"]["default"] = {"-odd": {"interval": "3650d", "keep": 3}}
    scheduler.job("vm1")

    async def scenario(daemon: Daemon) -> None:
        job = await run(daemon, "vm1")
        assert (job.known.error, job.summary.revisions) == (None, 1)

    inside(scenario)


def test_failures_of_every_kind(scheduler, inside, caplog: pytest.LogCaptureFixture) -> None:
    program = scheduler.folder / "program"
    program.write_text(
        "#!/bin/sh\nwhile [ $# -gt 1 ] && [ $1 != backup ]; do last=$1; shift; done\n"
        f"case $(cat {scheduler.folder}/how) in\n"
        "fails) echo Error: on purpose; exit 1;;\n"
        "glued) echo 'noiseError: x'; echo '2026-01-01 00:00:00 [1] ERROR x: Error: y'; exit 1;;\n"
        "silent) exit 3;;\nkilled) kill -KILL $$;;\nbusy) exit 75;;\nesac\n"
    )
    program.chmod(0o700)
    scheduler.job("vm1")
    expected = {
        "fails": "on purpose",
        "glued": "x: Error: y",
        "silent": f"exit code 3; {scheduler.base}/vm1/backy.log may tell more",
        "killed": "ended by signal 9",
        "nothing": "the backup ended well, but there is no new revision",
    }

    async def scenario(daemon: Daemon) -> None:
        for number, (how, error) in enumerate(expected.items(), 1):
            (scheduler.folder / "how").write_text(how)
            log = scheduler.base / "vm1/backy.log"
            log.unlink(missing_ok=True)
            job = await run(daemon, "vm1")
            assert (job.known.error, job.entry.failures) == (error, number)
        (scheduler.folder / "how").write_text("busy")
        assert (await run(daemon, "vm1")).entry.failures == len(expected)
        daemon.runner.prepare = lambda _: 1 / 0
        job = await run(daemon, "vm1")
        assert job.known.error == "internal error; the log of the scheduler tells more"

    (scheduler.folder / "how").write_text("plugins")
    inside(scenario, program)


def test_a_source_that_hangs_holds_up_nobody_for_good(scheduler, inside) -> None:
    scheduler.content["global"]["standstill"] = 0
    scheduler.job("vm1", standstill=1)
    scheduler.job("vm2")
    program = scheduler.folder / "program"
    backy = Path(sys.executable).with_name("backy")
    program.write_text(f'#!/bin/sh\ncase "$*" in */vm1*) exec sleep 1000;; esac\nexec {backy} "$@"\n')
    program.chmod(0o700)

    async def scenario(daemon: Daemon) -> None:
        daemon.trigger(["vm1"])
        await until(lambda: daemon.ledger.jobs["vm1"].task)
        daemon.trigger(["vm2"])
        await until(lambda: daemon.ledger.jobs["vm1"].known.error)
        assert daemon.ledger.jobs["vm1"].known.error == "the backup read or stored nothing for 0:00:01 and was ended"
        await until(lambda: daemon.ledger.jobs["vm2"].summary and daemon.ledger.jobs["vm2"].summary.revisions)

    inside(scenario, program)


UNFIT_SOURCE = """
    import os, time
    from backy.hookspecs import hookimpl

    @hookimpl
    def backy_source(config):
        time.sleep(1000) if config["do"] == "hang" else os._exit(7)

    @hookimpl
    def backy_source_config(argument):
        return {}
"""


def test_a_source_that_is_unfit_when_it_is_made_harms_neither_the_scheduler_nor_others(scheduler, inside) -> None:
    program = scheduler.folder / "program"
    backy = Path(sys.executable).with_name("backy")
    program.write_text(f'#!/bin/sh\nPYTHONPATH={scheduler.folder}/site exec {backy} "$@"\n')
    program.chmod(0o700)
    scheduler.plugin("unfit", UNFIT_SOURCE, "sources")
    scheduler.job("vm1", source={"type": "unfit", "do": "hang"}, standstill=2)
    scheduler.job("vm2", source={"type": "unfit", "do": "exit"})
    scheduler.job("vm3")

    async def scenario(daemon: Daemon) -> None:
        before = threading.enumerate()
        daemon.trigger(["vm1"])
        jobs = daemon.ledger.jobs
        assert (await run(daemon, "vm2")).known.error == f"exit code 7; {scheduler.base}/vm2/backy.log may tell more"
        assert (await run(daemon, "vm3")).known.error is None
        await until(lambda: jobs["vm1"].known.error)
        assert jobs["vm1"].known.error == "the backup read or stored nothing for 0:00:02 and was ended"
        # what is looked at aside for a moment ends by itself; what hangs does not
        await until(lambda: not [one for one in threading.enumerate() if one not in before and not idle(one)])
        assert not scheduler.children()

    inside(scenario, program)


def idle(thread: threading.Thread) -> bool:
    """Tell whether a thread waits for work, as those of a pool do."""
    return thread.name.startswith(("announcer", "asyncio", "scanner"))


def test_a_repository_that_somebody_changes_gets_its_configuration_later(scheduler, inside, caplog) -> None:
    scheduler.job("vm1")

    async def scenario(daemon: Daemon) -> None:
        assert (await run(daemon, "vm1")).known.error is None
        vm1 = Repository.open(scheduler.base / "vm1")
        (vm1.directory / "config").write_bytes(dump_job(msgspec.structs.replace(vm1.config, expire=False)))
        with exclusive(vm1.directory, BACKUP_LOCK):
            assert (await run(daemon, "vm1")).entry.failures == 0
        assert "is busy: another backy command holds .backup" in caplog.text
        assert not Repository.open(vm1.directory).config.expire
        assert (await run(daemon, "vm1")).known.error is None
        assert Repository.open(vm1.directory).config.expire

    inside(scenario)


def test_what_fails_after_a_backup_does_not_make_it_bad(scheduler, inside) -> None:
    scheduler.job("vm1")

    async def scenario(daemon: Daemon) -> None:
        job = await run(daemon, "vm1")
        with (scheduler.base / "vm1/.purge").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            job = await run(daemon, "vm1")
        # somebody reads: this is no failure, but is told if it lasts
        assert (job.known.error, job.known.failing_since) == (None, None)
        assert (since := job.known.put_off_since)
        daemon.runner.callback = scheduler.folder / "missing"
        with (scheduler.base / "vm1/.purge").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            job = await run(daemon, "vm1")
        assert job.known.error == f"backup-completed-callback {scheduler.folder}/missing: No such file or directory"
        assert job.known.put_off_since == since
        assert (since := job.known.failing_since)
        daemon.runner.callback = scheduler.folder / "fails"
        daemon.runner.callback.write_text("#!/bin/sh\nexit 3\n")
        daemon.runner.callback.chmod(0o700)
        oldest = min((scheduler.base / "vm1").glob("*.map"), key=lambda path: path.stat().st_mtime)
        sound = oldest.read_bytes()
        oldest.chmod(0o600)
        oldest.write_bytes(b"damaged")
        job = await run(daemon, "vm1")
        both = r"'backy purge' failed: .*; backup-completed-callback .* ended with exit code 3"
        assert re.fullmatch(both, job.known.error)
        assert (job.known.failing_since, job.known.put_off_since, job.entry.failures) == (since, None, 0)
        oldest.write_bytes(sound)
        daemon.runner.callback = None
        job = await run(daemon, "vm1")
        assert (job.known.error, job.known.failing_since) == (None, None)

    inside(scenario)


FAILING_HOOK = """
    from backy.hookspecs import hookimpl

    @hookimpl
    def backy_purge_finished(job):
        raise OSError("no network")
"""


def test_a_hook_that_fails_is_told_until_it_works(scheduler, inside) -> None:
    scheduler.job("vm1")
    program = scheduler.folder / "program"
    backy = Path(sys.executable).with_name("backy")
    program.write_text(f'#!/bin/sh\nPYTHONPATH={scheduler.folder}/site exec {backy} "$@"\n')
    program.chmod(0o700)
    scheduler.plugin("caller", FAILING_HOOK)

    async def scenario(daemon: Daemon) -> None:
        for _ in range(2):
            job = await run(daemon, "vm1")
            assert job.known.error == "hook 'caller' failed in backy_purge_finished: OSError: no network"
        assert (job.entry.failures, job.known.unfinished, job.summary.revisions) == (0, True, 2)
        plugin = scheduler.folder / "site/caller.py"
        plugin.write_text(plugin.read_text().replace('raise OSError("no network")', "pass"))
        job = await run(daemon, "vm1")
        assert (job.known.error, job.known.failing_since) == (None, None)

    inside(scenario, program)


HANGING_HOOK = """
    import time
    from backy.hookspecs import hookimpl

    @hookimpl
    def backy_job_finished():
        time.sleep(600)
"""


def test_a_hook_that_hangs_delays_no_job_and_not_the_end(scheduler, inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "PATIENCE", timedelta())
    installed = Events.installed
    monkeypatch.setattr(Events, "installed", lambda sections: installed(sections, 2))
    monkeypatch.syspath_prepend(scheduler.folder / "site")
    scheduler.plugin("hanging", HANGING_HOOK)
    scheduler.job("vm1")
    daemons = []

    async def scenario(daemon: Daemon) -> None:
        daemons.append(daemon)
        for number in (1, 2):
            job = await run(daemon, "vm1")
            assert (job.known.error, job.summary.revisions) == (None, number)

    inside(scenario)
    daemons[0]._announcer._thread.join()
    (problem,) = daemons[0]._announcer.problems(["vm1"])
    assert "ended after 2 seconds, its limit" in problem


def test_what_follows_a_backup_has_a_time_limit_too(scheduler, inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CALLBACK_LIMIT", timedelta(seconds=2))
    callback = scheduler.folder / "callback"
    callback.write_text("#!/bin/sh\nexec sleep 1000\n")
    callback.chmod(0o700)
    scheduler.content["global"]["backup-completed-callback"] = str(callback)
    scheduler.job("vm1")

    async def scenario(daemon: Daemon) -> None:
        job = await run(daemon, "vm1")
        assert job.known.error == f"backup-completed-callback {callback}: it took longer than 0:00:02 and was ended"

    inside(scenario)


@pytest.fixture
def doubts(scheduler, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """What a hook plugin was told of a clock that is not right, as place and text."""
    path = scheduler.folder / "doubts"
    scheduler.plugin("doubts", DOUBTS.format(path=str(path)))
    monkeypatch.syspath_prepend(scheduler.folder / "site")
    return lambda: [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


DOUBTS = """
    import json
    from datetime import datetime
    from backy.hookspecs import hookimpl
    @hookimpl
    def backy_clock_suspect(place, since, text):
        assert isinstance(since, datetime)
        with open({path!r}, "a") as stream:
            stream.write(json.dumps([place, text]) + "\\n")
"""


def test_hook_backy_clock_suspect_is_told_when_the_clock_is_set_back_after_a_backup(
    scheduler, inside, doubts: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.content["schedules"]["default"] = {"often": {"interval": "10d", "keep": 3}}
    scheduler.job("vm1")
    ahead = timedelta()

    async def scenario(daemon: Daemon) -> None:
        nonlocal ahead
        job = await run(daemon, "vm1")
        (first,) = (job.newest,)
        ahead = timedelta(days=60)
        daemon._wake.set()
        await until(lambda: job.entry.past.ahead)
        assert job.entry.past.ahead == (first,)
        assert job.entry.past.newest is None
        assert job.entry.due.time < daemon.clock() + timedelta(days=10)
        assert daemon.status().jobs[0].ahead == (first,)
        await until(doubts)
        ahead = timedelta()
        daemon._wake.set()
        await until(lambda: not job.entry.past.ahead)

    inside(scenario, clock=lambda: utc_now() - ahead)
    assert "the clock was set back by 60 days" in caplog.text
    assert "the clock was set forward by 60 days" in caplog.text
    place, text = doubts()[0]
    assert place == str(scheduler.base / "vm1")
    assert text.startswith("vm1: the schedule does not count 1 revision ahead of the clock, the latest of which is ")
    assert text in caplog.messages


def test_hook_backy_clock_suspect_is_told_by_a_scheduler_that_waits_for_the_clock_at_its_start(
    scheduler, inside, doubts: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.job("vm1")
    behind = timedelta()

    async def once(daemon: Daemon) -> None:
        await run(daemon, "vm1")

    async def again(daemon: Daemon) -> None:
        nonlocal behind
        job = daemon.ledger.jobs["vm1"]
        assert daemon.ledger.patience() == timedelta(minutes=5)
        assert daemon._waits_for_clock()
        daemon.trigger(["vm1"])
        await until(lambda: "vm1: the clock is before the newest revision" in caplog.text)
        assert (job.task, job.summary.revisions) == (None, 1)
        await until(lambda: any("nothing is started for" in text for _, text in doubts()))
        behind = timedelta()
        await until(lambda: job.summary.revisions == 2)
        assert not daemon._waits_for_clock()

    inside(once)
    behind = timedelta(days=20000)
    inside(again, clock=lambda: utc_now() - behind)
    assert caplog.text.count("the clock is before the newest revision") == 1


def test_hook_backy_journal_broken_is_told_once(
    scheduler, inside, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.job("vm1")
    told: list[tuple[str, str]] = []

    async def scenario(daemon: Daemon) -> None:
        monkeypatch.setattr(daemon._announcer, "tell", lambda hook, _, **told_of: told.append((hook, str(told_of))))
        job = await run(daemon, "vm1")
        assert daemon.status().jobs[0].head
        newest = job.newest
        (scheduler.base / "vm1" / f"{newest}.rev").unlink()
        for _ in range(2):
            await daemon._scanner.look_again(job)
        text = f"revision {newest} is gone, and nothing in the journal removed it"
        assert daemon.status().jobs[0].tampering == (text,)
        assert [one for one in told if one[0] == "backy_journal_broken"] == [
            ("backy_journal_broken", str({"text": text}))
        ]
        assert caplog.text.count(text) == 1
        await until(lambda: read(scheduler.base / "status").jobs[0].tampering)

    async def again(daemon: Daemon) -> None:
        (job,) = daemon.ledger.jobs.values()
        assert await daemon._scanner.look_again(job)
        assert daemon.status().jobs[0].tampering
        assert caplog.text.count("nothing in the journal removed it") == 1

    inside(scenario)
    inside(again)


def test_runs_are_cancelled_whether_they_go_on_wait_or_have_just_begun(
    scheduler, inside, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("vm1", "vm2"):
        scheduler.job(name)
    scheduler.hold()
    scheduler.content["global"]["worker-limit"] = 1

    async def cancelled(daemon: Daemon, job: Job) -> None:
        """Cancel a run, and see that it is no failure, and that the next one comes by the schedule."""
        upcoming = await daemon.cancel(job.settings.name)
        (row,) = (row for row in daemon.status().jobs if row.job == job.settings.name)
        assert (row.status, row.error, row.failing_since) == ("waiting for deadline", "cancelled by an operator", None)
        assert row.next_time == upcoming > utc_now()
        assert not job.entry.urgent
        with pytest.raises(BackyError, match=f"there is no run of {job.settings.name} to cancel"):
            await daemon.cancel(job.settings.name)

    async def scenario(daemon: Daemon) -> None:
        log, (first, second) = scheduler.base / "vm1/backy.log", daemon.ledger.jobs.values()
        daemon.trigger(["vm1"])
        await until(lambda: log.exists() and " -- daily" in log.read_text())
        daemon.trigger(["vm2"])
        await until(lambda: second.entry.phase is Phase.QUEUED)
        await cancelled(daemon, second)
        assert scheduler.children()
        assert daemon.runner.doing["vm1"] == {"command": "backup"}
        await cancelled(daemon, first)
        assert scheduler.children() == []
        assert list(scheduler.base.glob("vm1/*.rev")) == []

        daemon.ledger.agenda.trigger("vm2", utc_now())
        assert daemon.ledger.agenda.start(utc_now()) == [second.entry]
        second.task = daemon._keep(daemon._run(second))
        await cancelled(daemon, second)
        assert daemon.ledger.agenda.running(second.entry.pool) == 0

        # a reload may end one that has just begun, too: its slot would be lost for all others
        daemon.ledger.agenda.trigger("vm2", utc_now())
        daemon.ledger.agenda.start(utc_now())
        second.task = daemon._keep(daemon._run(second))
        daemon._end([second])
        await asyncio.gather(*daemon._tasks, return_exceptions=True)
        assert daemon.ledger.agenda.running(second.entry.pool) == 0

    inside(scenario)
    assert "vm1: cancelled by an operator; next " in caplog.text


def test_a_reload_and_its_errors(scheduler, inside, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in ("vm1", "vm2"):
        scheduler.job(name, **{"time-limit": "1h"})
    scheduler.hold()

    async def scenario(daemon: Daemon) -> None:
        before = daemon.ledger.jobs["vm1"]
        daemon.trigger(["vm1"])
        await until(lambda: before.task)
        del scheduler.content["jobs"]["vm1"]
        scheduler.content["schedules"]["default"] = {"weekly": {"interval": "3640d", "keep": 1}}
        scheduler.write()
        assert await daemon.reload() == "1 job, 0 of them new; 1 is gone"
        await until(lambda: not daemon._tasks)
        assert daemon.ledger.jobs["vm2"].entry.due.tags == ("weekly",)

        scheduler.content["global"]["base-dir"] = "/elsewhere"
        scheduler.write()
        with pytest.raises(BackyError, match="restart it to change that"):
            await daemon.reload()
        assert daemon.status().configuration_error
        # at once, for those who ask as soon as they are told
        assert "base-dir" in read(scheduler.base / "status").configuration_error
        scheduler.content["global"]["base-dir"] = str(scheduler.base)
        scheduler.write()
        await daemon.reload()
        assert read(scheduler.base / "status").configuration_error is None
        scheduler.configuration.write_text("nonsense: [")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "nonsense" in caplog.text or "not YAML" in caplog.text)
        assert list(daemon.ledger.jobs) == ["vm2"]

    inside(scenario)


def test_jobs_are_shown_as_they_were_before_until_they_are_looked_at(scheduler, inside) -> None:
    scheduler.job("vm1")

    async def once(daemon: Daemon) -> None:
        await run(daemon, "vm1")
        await until(lambda: read(scheduler.base / "status").jobs[0].revisions == 1)

    async def again(daemon: Daemon) -> None:
        job = daemon.ledger.jobs["vm1"]
        job.summary = job.row = job.entry.due = None
        (row,) = daemon.ledger.rows(daemon.clock())
        assert (row.revisions, row.next_time, row.last_tags) == (1, None, ("daily",))

    inside(once)
    inside(again)


def test_an_interval_of_nothing_is_a_second(scheduler, inside) -> None:
    scheduler.content["global"]["status-interval"] = 0

    async def scenario(daemon: Daemon) -> None:
        assert daemon._interval() == timedelta(seconds=1)

    inside(scenario)


def test_that_plugins_can_not_be_looked_at_is_told(
    scheduler, inside, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reporter, "PLUGINS_INTERVAL", timedelta(seconds=0.1))
    scheduler.content["global"]["status-file"] = str(scheduler.folder / "missing/status")

    async def scenario(daemon: Daemon) -> None:
        await until(lambda: "nobody knows which plugins are broken" in caplog.text)

    inside(scenario, Path("/bin/true"))
    assert caplog.text.count("the status can not be written") == 1


def test_one_scheduler_holds_a_base_directory(tmp_path: Path) -> None:
    with held(tmp_path) as check:
        check()
        with pytest.raises(SchedulerRunningError), held(tmp_path):
            pass
        (tmp_path / ".lock").unlink()
        with pytest.raises(BackyError, match="is it mounted"):
            check()
    with pytest.raises(BackyError, match="is it mounted"), held(tmp_path / "missing"):
        pass


def test_the_grace_of_a_child_is_shorter_than_systemd_s_patience() -> None:
    unit = (Path(__file__).parents[3] / "docs/examples/backy.service").read_text()
    assert "TimeoutStopSec=90s" in unit
    assert timedelta(seconds=90) > children.GRACE * 2


def test_hook_backy_space_low_plugins_are_told_once_that_the_disk_will_be_full(
    scheduler, inside, monkeypatch, caplog
) -> None:
    """Also if a scheduler is started again meanwhile."""
    scheduler.content["global"]["status-interval"] = 1
    free = [10, 5, 4, 3, 9, 9, 4]
    monkeypatch.setattr("backy.scheduler.daemon.look", lambda place: disk(place, free.pop(0) if free else 4))
    monkeypatch.setattr(Daemon, "_interval", lambda _: timedelta(seconds=0.01))
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        reporter.Announcer, "tell", lambda _, hook, place, **keys: told.append((hook, {"place": place, **keys}))
    )

    async def scenario(daemon: Daemon) -> None:
        await until(lambda: not free)
        await until(lambda: len(told) == 2)
        await daemon._reporter.write()

    inside(scenario)
    assert [hook for hook, _ in told] == ["backy_space_low"] * 2
    assert told[0][1]["place"] == scheduler.base
    assert told[0][1]["text"].startswith(f"{scheduler.base}: 4 Bytes left on the disk of 20 Bytes")
    assert left_before(scheduler.base / "status").disk.low_since == told[1][1]["since"]


def disk(place: Path, free: int) -> DiskStatus:
    return DiskStatus(place=str(place), size=20, free=free, growth=0)


def test_a_job_whose_repository_is_too_large_stops_alone(scheduler, inside) -> None:
    image = scheduler.job("vm1", reserve=0, **{"max-size": "1M"})
    scheduler.job("vm2")

    async def scenario(daemon: Daemon) -> None:
        for expected in (
            None,
            None,
            r"the repository takes 1\.\d MiB, and max-size is 1\.0 MiB: 'backy forget', then 'backy purge --trash'",
        ):
            image.write_bytes(os.urandom(600_000))
            job = await run(daemon, "vm1")
            assert job.known.error is expected or re.fullmatch(expected, job.known.error)
        repository = Repository.open(scheduler.base / "vm1")
        assert len(repository.records.history()) == 2
        assert (await run(daemon, "vm2")).known.error is None
        rows = {row.job: row for row in daemon.status().jobs}
        assert (rows["vm1"].max_size, rows["vm1"].image, rows["vm1"].changed) == (2**20, 600_000, 600_000)
        assert 600_000 < rows["vm1"].stored < 601_000
        assert 1_200_000 < rows["vm1"].occupied < 1_500_000  # with the space that the journal has ahead
        assert 0 <= rows["vm1"].shared < rows["vm1"].occupied
        assert rows["vm2"].max_size is None

        forget(repository, ["1"], events=Events())
        purge(repository, Events(), everything=True)
        job = await run(daemon, "vm1")
        assert (job.known.error, job.entry.failures) == (None, 0)

    inside(scenario)
