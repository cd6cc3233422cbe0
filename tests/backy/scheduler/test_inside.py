"""A scheduler in this process, with real children: what only its inside shows."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backy.errors import BackyError
from backy.repository.revision import utc_now
from backy.scheduler.configuration.configuration import load
from backy.scheduler.daemon import Daemon
from backy.scheduler.jobs import runner
from backy.scheduler.jobs.agenda import Phase
from backy.scheduler.jobs.ledger import Job
from backy.scheduler.monitoring import reporter
from backy.scheduler.monitoring.status import known_before, read
from backy.scheduler.process import children
from backy.scheduler.process.base_directory import BaseDirectory, SchedulerRunningError
from backy.scheduler.process.systemd import Notifier

Scenario = Callable[[Daemon], Awaitable[Any]]


@pytest.fixture
def inside(scheduler) -> Callable[..., None]:
    """Run a scheduler and, beside it, `scenario(daemon)`; then end it."""

    def run(scenario: Scenario, program: Path | None = None, clock: Callable[[], datetime] = utc_now) -> None:
        scheduler.write()
        configuration = load(scheduler.configuration)
        backy = [str(program or Path(sys.executable).with_name("backy"))]

        async def schedule() -> None:
            with BaseDirectory.held(configuration.settings.base_dir) as base:
                daemon = Daemon(configuration, base, backy, Notifier(None, timedelta(seconds=1)), clock)
                work = asyncio.create_task(daemon.run(known_before(configuration.settings.status_path)))
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
        assert (job.error, job.entry.failures, job.summary.revisions) == (None, 0, 1)
        await until(lambda: read(scheduler.base / "status").jobs[0].revisions == 1)

    inside(scenario)
    assert "called with vm1\n1\n" in (scheduler.base / "vm1/backy.log").read_text()
    assert 'backy_job_revisions{job="vm1"} 1' in (scheduler.folder / "backy.prom").read_text()


def test_a_tag_that_looks_like_an_option_is_a_tag(scheduler, inside) -> None:
    scheduler.content["schedules"]["default"] = {"-odd": {"interval": "3650d", "keep": 3}}
    scheduler.job("vm1")

    async def scenario(daemon: Daemon) -> None:
        job = await run(daemon, "vm1")
        assert (job.error, job.summary.revisions) == (None, 1)

    inside(scenario)


def test_failures_of_every_kind(scheduler, inside, monkeypatch: pytest.MonkeyPatch) -> None:
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
            assert (job.error, job.entry.failures) == (error, number)
        (scheduler.folder / "how").write_text("busy")
        assert (await run(daemon, "vm1")).entry.failures == len(expected)
        daemon._runner.prepare = lambda _: 1 / 0
        job = await run(daemon, "vm1")
        assert job.error == "internal error; the log of the scheduler tells more"

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
        await until(lambda: daemon.ledger.jobs["vm1"].error)
        assert daemon.ledger.jobs["vm1"].error == "nothing was read or stored for 0:00:01, so the backup was ended"
        await until(lambda: daemon.ledger.jobs["vm2"].summary and daemon.ledger.jobs["vm2"].summary.revisions)

    inside(scenario, program)


def test_a_plugin_that_hangs_when_it_is_loaded_holds_up_nobody_for_good(scheduler, inside) -> None:
    scheduler.job("vm1", standstill=1)
    scheduler.job("vm2")

    async def scenario(daemon: Daemon) -> None:
        prepare = daemon._runner.prepare
        daemon._runner.prepare = lambda job: threading.Event().wait() if job.name == "vm1" else prepare(job)
        job = await run(daemon, "vm1")
        assert job.error == "loading the job's plugins (source 'file', storage 'chunked') took longer than 0:00:01"
        assert (await run(daemon, "vm2")).error is None

    inside(scenario)


def test_what_fails_after_a_backup_does_not_make_it_bad(scheduler, inside) -> None:
    scheduler.job("vm1")

    async def scenario(daemon: Daemon) -> None:
        job = await run(daemon, "vm1")
        with (scheduler.base / "vm1/.purge").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            job = await run(daemon, "vm1")
        assert job.error.startswith("'backy purge' failed after the backup: ")
        assert (job.entry.failures, job.summary.revisions) == (0, 2)
        daemon._runner.callback = scheduler.folder / "missing"
        job = await run(daemon, "vm1")
        assert job.error.startswith("what follows a backup failed: [Errno 2]")

    inside(scenario)


def test_what_follows_a_backup_has_a_time_limit_too(scheduler, inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CALLBACK_LIMIT", timedelta(seconds=2))
    callback = scheduler.folder / "callback"
    callback.write_text("#!/bin/sh\nexec sleep 1000\n")
    callback.chmod(0o700)
    scheduler.content["global"]["backup-completed-callback"] = str(callback)
    scheduler.job("vm1")

    async def scenario(daemon: Daemon) -> None:
        job = await run(daemon, "vm1")
        assert job.error == "what follows a backup took longer than 0:00:02 and was ended"

    inside(scenario)


def test_the_clock_is_set_back_after_a_backup(scheduler, inside, caplog: pytest.LogCaptureFixture) -> None:
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
        assert job.entry.due.time < daemon._clock() + timedelta(days=10)
        assert daemon.status().jobs[0].ahead == (first,)
        ahead = timedelta()
        daemon._wake.set()
        await until(lambda: not job.entry.past.ahead)

    inside(scenario, clock=lambda: utc_now() - ahead)
    assert "the clock was set back by 60 days" in caplog.text
    assert "the clock was set forward by 60 days" in caplog.text
    assert "vm1: the schedule does not count 1 revision ahead of the clock" in caplog.text


def test_a_scheduler_that_starts_before_its_newest_revision_waits_for_the_clock(
    scheduler, inside, caplog: pytest.LogCaptureFixture
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
        behind = timedelta()
        await until(lambda: job.summary.revisions == 2)
        assert not daemon._waits_for_clock()

    inside(once)
    behind = timedelta(days=20000)
    inside(again, clock=lambda: utc_now() - behind)
    assert caplog.text.count("the clock is before the newest revision") == 1


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
        job.summary = job.row = None
        (row,) = daemon.ledger.rows(daemon._clock())
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
    with BaseDirectory.held(tmp_path) as base:
        base.check()
        with pytest.raises(SchedulerRunningError), BaseDirectory.held(tmp_path):
            pass
        (tmp_path / ".lock").unlink()
        with pytest.raises(BackyError, match="is it mounted"):
            base.check()
    with pytest.raises(BackyError, match="is it mounted"), BaseDirectory.held(tmp_path / "missing"):
        pass


def test_the_grace_of_a_child_is_shorter_than_systemd_s_patience() -> None:
    unit = (Path(__file__).parents[3] / "docs/examples/backy.service").read_text()
    assert "TimeoutStopSec=90s" in unit
    assert timedelta(seconds=90) > children.GRACE * 2
