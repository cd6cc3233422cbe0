"""A scheduler that really runs, with real children, as operators and signals meet it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backy.errors import ExitCode
from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.repository.sealed import FORMAT
from backy.scheduler.jobs.agenda import BUSY_RETRY
from tests.ports import unused_port

Eventually = Callable[[Callable[[], Any]], Any]


def test_a_job_is_run_when_it_is_told_to(scheduler, eventually: Eventually) -> None:
    scheduler.job("vm1")
    scheduler.start()
    assert scheduler.jobs()["vm1"].status == "waiting for deadline"
    assert scheduler.ask("run", "vm1").text == "Triggered immediate run for vm1"
    done = scheduler.done("vm1")
    assert (done.last_tags, done.failures, done.error, done.revisions) == (("daily",), 0, None, 1)
    assert scheduler.revisions("vm1") == 1
    log = (scheduler.base / "vm1/backy.log").read_text()
    for command in ("backup --configure -- daily", "expire", "purge"):
        assert f"-b {scheduler.base}/vm1 -l {scheduler.base}/vm1/backy.log {command}\n" in log
    assert eventually(lambda: scheduler.status().jobs[0].revisions == 1)
    assert "vm1: backing up as daily" in scheduler.log.read_text()


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_scheduler_with_closed_descriptors_works_and_logs(scheduler, closed: str) -> None:
    scheduler.job("vm1")
    scheduler.start(closed=closed)
    scheduler.ask("run", "vm1")
    assert scheduler.done("vm1").failures == 0
    assert scheduler.stop() == 0
    log, told = scheduler.log.read_text(), (scheduler.base / "vm1/backy.log").read_text()
    assert "vm1: backing up as daily" in log
    assert [text.endswith("INFO done\n") for text in (log, told)] == [True, True]
    assert "Traceback" not in log + told


def test_jobs_run_when_they_are_due(scheduler, eventually: Eventually) -> None:
    scheduler.content["schedules"]["default"] = {"often": {"interval": 1, "keep": 2}}
    scheduler.job("vm1")
    scheduler.job("vm2")
    scheduler.start()
    eventually(lambda: all(job.revisions >= 2 for job in scheduler.jobs().values()))
    assert scheduler.stop() == 0


def test_a_job_that_fails_waits_and_says_why(scheduler, eventually: Eventually) -> None:
    scheduler.job("vm1").unlink()
    scheduler.start()
    scheduler.ask("run", "vm1")
    job = eventually(lambda: (job := scheduler.jobs()["vm1"]).failures and job)
    assert job.status == "failed"
    assert job.error == f"source {scheduler.folder}/vm1.img: No such file or directory"
    assert timedelta() < job.next_time - utc_now() <= timedelta(minutes=2)
    assert "vm1: failed, 1 in a row: source" in eventually(scheduler.log.read_text)
    scheduler.ask("run", "vm1")
    assert eventually(lambda: scheduler.jobs()["vm1"].failures == 2)


def test_a_job_whose_source_is_unknown_harms_no_other(scheduler, eventually: Eventually) -> None:
    scheduler.job("vm1", source={"type": "nosuchsource"})
    scheduler.job("vm2")
    scheduler.start()
    assert scheduler.ask("runall").text == "Triggered immediate run for 2 jobs"
    scheduler.done("vm2")
    assert "no source 'nosuchsource'" in eventually(lambda: scheduler.jobs()["vm1"].error)


@pytest.mark.parametrize("revisions", [0, 1])
def test_a_repository_of_backy_2_is_left_alone_and_told(
    revisions: int, scheduler, eventually: Eventually, backy, tree
) -> None:
    scheduler.content["schedules"]["default"] = {"often": {"interval": 1, "keep": 2}}
    scheduler.job("old")
    scheduler.job("vm2")
    folder = scheduler.base / "old"
    folder.mkdir()
    (folder / "config").write_text("{type: file, filename: /srv/vm.img}\n")
    for number in range(revisions):
        record = f"uuid: revision-{number}\ntimestamp: 2026-01-01 00:00:00\nstats: {{duration: 1.5}}\n"
        (folder / f"revision-{number}.rev").write_text(record)
    before = tree(folder)
    scheduler.start()
    scheduler.ask("runall")
    eventually(lambda: scheduler.jobs()["vm2"].revisions >= 2)
    eventually(lambda: "of backy 2" in backy("check", "-c", scheduler.configuration).out)

    checked = backy("check", "-c", scheduler.configuration)

    assert f"{folder} is a repository of backy 2: install backy-upgrade, and 'backy -b {folder} upgrade'" in checked.out
    assert checked.code in {1, 2}, "a warning, or critical once it is overdue"
    assert "damaged" not in checked.out
    assert tree(folder) == before


def test_there_is_one_scheduler_for_a_base_directory(scheduler) -> None:
    scheduler.job("vm1")
    scheduler.start()
    first = scheduler.process
    scheduler.start(wait=False)
    _, errors = scheduler.process.communicate()
    assert scheduler.process.returncode == ExitCode.UNAVAILABLE == 69
    assert errors.decode() == f"Error: another scheduler serves {scheduler.base}\n"
    scheduler.process = first
    assert scheduler.ask("status").ok


def test_a_base_directory_that_is_missing_is_not_made(scheduler) -> None:
    scheduler.base.rmdir()
    scheduler.start(wait=False)
    assert b"is it mounted?" in scheduler.process.communicate()[1]
    assert scheduler.process.returncode == ExitCode.FAILED
    assert not scheduler.base.exists()


def test_nothing_is_written_where_the_disk_was_unmounted(scheduler, eventually: Eventually) -> None:
    scheduler.job("vm1")
    scheduler.start()
    away = scheduler.base.rename(scheduler.folder / "away")
    scheduler.base.mkdir()
    (scheduler.base / ".socket").symlink_to(away / ".socket")
    scheduler.ask("run", "vm1")
    assert "is it mounted?" in eventually(lambda: scheduler.jobs()["vm1"].error)
    assert not (scheduler.base / "vm1").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_the_end_leaves_no_child_and_no_part_of_a_revision(scheduler, eventually: Eventually, number) -> None:
    scheduler.job("vm1")
    scheduler.job("vm2")
    scheduler.content["global"]["worker-limit"] = 2
    scheduler.hold()
    scheduler.start()
    scheduler.ask("runall")
    eventually(lambda: len(scheduler.children()) == 2)
    assert scheduler.stop(number) == 0
    assert scheduler.children() == []
    assert list(scheduler.base.glob("vm*/*.rev")) == []
    log = scheduler.log.read_text()
    assert "stopping" in log
    assert "Traceback" not in log


def make_due(scheduler, name: str) -> None:
    """Configure a job that ought to have run the day before yesterday."""
    image = scheduler.job(name)
    scheduler.content["schedules"]["default"] = {"daily": {"interval": "1d", "keep": 3}}
    config = JobConfig(
        format=FORMAT,
        source=SourceSection({"type": "file", "filename": str(image)}),
        created=utc_now() - timedelta(days=3),
    )
    Repository.initialize(scheduler.base / name, config)


def test_a_scheduler_that_is_killed_leaves_a_backup_that_the_next_one_notices(
    scheduler, eventually: Eventually
) -> None:
    make_due(scheduler, "vm1")
    scheduler.hold()
    scheduler.start()
    (child,) = eventually(scheduler.children)
    eventually(lambda: " -- daily" in (scheduler.base / "vm1/backy.log").read_text())
    scheduler.process.kill()
    scheduler.process.communicate()
    assert scheduler.children() == [child]

    scheduler.start()
    job = eventually(lambda: (job := scheduler.jobs()["vm1"]).error and job)
    assert job.error.endswith("is busy: another backy command holds .backup; try again later")
    assert job.failures == 0
    assert job.status == "waiting for deadline"
    assert timedelta() < job.next_time - utc_now() <= BUSY_RETRY
    scheduler.release()
    eventually(lambda: scheduler.children() == [])
    assert scheduler.revisions("vm1") == 1
    scheduler.stop()

    scheduler.start()
    job = scheduler.done("vm1")
    assert (job.revisions, job.failures) == (1, 0)
    assert (job.next_time - job.last_time).total_seconds() > 0


def test_what_a_killed_scheduler_missed_is_caught_up(scheduler, eventually: Eventually) -> None:
    make_due(scheduler, "vm1")
    scheduler.hold()
    scheduler.start()
    (child,) = eventually(scheduler.children)
    scheduler.process.kill()
    scheduler.process.communicate()
    subprocess.run(["kill", "-KILL", str(child)], check=True)
    eventually(lambda: not scheduler.children())
    scheduler.release()
    scheduler.start()
    assert scheduler.done("vm1").error is None


def test_a_backup_that_takes_too_long_is_ended(scheduler, eventually: Eventually) -> None:
    scheduler.job("vm1", **{"time-limit": "1s"})
    scheduler.hold()
    scheduler.start()
    scheduler.ask("run", "vm1")
    job = eventually(lambda: (job := scheduler.jobs()["vm1"]).failures and job)
    assert job.error == "the backup took longer than 0:00:01 and was ended"
    assert scheduler.children() == []


def test_a_reload_takes_jobs_away_and_adds_some_while_others_go_on(scheduler, eventually: Eventually) -> None:
    for name in ("stays", "goes", "changes"):
        scheduler.job(name)
    scheduler.content["global"]["worker-limit"] = 3
    scheduler.hold()
    scheduler.start()
    scheduler.ask("runall")
    eventually(lambda: len(scheduler.children()) == 3)
    del scheduler.content["jobs"]["goes"]
    scheduler.job("comes")
    scheduler.content["jobs"]["changes"]["source"]["filename"] = str(scheduler.folder / "comes.img")
    scheduler.reload()
    assert set(scheduler.jobs()) == {"stays", "comes", "changes"}
    eventually(lambda: len(scheduler.children()) == 1)
    assert scheduler.jobs()["stays"].status == "running (slow)"
    assert scheduler.jobs()["changes"].error == "the backup was ended by the scheduler"
    scheduler.release()
    scheduler.done("stays")
    assert "reloaded the configuration: 3 jobs, 1 of them new; 1 is gone" in scheduler.log.read_text()


def test_a_configuration_that_is_wrong_changes_nothing_and_everybody_is_told(
    scheduler, eventually: Eventually, backy
) -> None:
    scheduler.job("vm1")
    scheduler.start()
    scheduler.content["jobs"]["vm1"]["schedule"] = "nosuchschedule"
    scheduler.reload()
    assert scheduler.jobs()["vm1"].status == "waiting for deadline"
    assert "the configuration stays as it is" in scheduler.log.read_text()
    eventually(lambda: scheduler.status().configuration_error)
    checked = backy("check", "-c", scheduler.configuration)
    assert checked.code == 1
    assert "jobs.vm1.schedule: no schedule 'nosuchschedule'" in checked.out
    assert not scheduler.ask("reload").ok

    scheduler.content["jobs"]["vm1"]["schedule"] = "default"
    scheduler.reload()
    eventually(lambda: not scheduler.status().configuration_error)
    assert backy("check", "-c", scheduler.configuration).code == 0


def test_a_scheduler_that_runs_keeps_its_base_directory(scheduler) -> None:
    scheduler.start()
    scheduler.content["global"]["base-dir"] = str(scheduler.folder)
    scheduler.write()
    assert "restart it" in scheduler.ask("reload").text


def test_the_callback_is_told_of_each_backup(scheduler, eventually: Eventually) -> None:
    callback = scheduler.folder / "callback"
    callback.write_text(
        f"#!/bin/sh\ncat >{scheduler.folder}/$1.json.new\nmv {scheduler.folder}/$1.json.new "
        f"{scheduler.folder}/$1.json\nexit 3\n"
    )
    callback.chmod(0o700)
    scheduler.content["global"]["backup-completed-callback"] = str(callback)
    scheduler.job("vm1")
    scheduler.start()
    scheduler.ask("run", "vm1")
    eventually((scheduler.folder / "vm1.json").exists)
    (revision,) = json.loads((scheduler.folder / "vm1.json").read_text())["revisions"]
    assert revision["tags"] == ["daily"]
    told = f"vm1: backup-completed-callback {callback}: it ended with exit code 3"
    eventually(lambda: told in scheduler.log.read_text())
    assert scheduler.done("vm1").failures == 0


def test_a_backup_made_by_hand_is_noticed(scheduler, eventually: Eventually, backy) -> None:
    scheduler.job("vm1")
    scheduler.start()
    scheduler.ask("run", "vm1")
    scheduler.done("vm1")
    assert backy("-b", scheduler.base / "vm1", "backup", "manual:upgrade").code == 0
    job = eventually(lambda: (job := scheduler.jobs()["vm1"]).revisions == 2 and job)
    assert job.manual_tags == ("manual:upgrade",)


def test_the_log_is_opened_anew_when_it_was_rotated(scheduler, eventually: Eventually) -> None:
    scheduler.start()
    scheduler.log.rename(scheduler.folder / "scheduler.log.1")
    scheduler.reload()
    eventually(lambda: scheduler.log.exists() and "reloaded" in scheduler.log.read_text())


def test_broken_plugins_are_found(scheduler, eventually: Eventually, backy) -> None:
    scheduler.plugin("broken", "raise ValueError('on purpose')")
    scheduler.start()
    eventually(lambda: scheduler.status().plugins)
    checked = backy("check", "-c", scheduler.configuration)
    assert checked.code == 1
    assert "broken plugin: hook 'broken' of broken: ValueError: on purpose" in checked.out


def test_systemd_is_kept_up_to_date(scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    scheduler.job("vm1")
    scheduler.start()
    scheduler.wait_for("WATCHDOG=1")
    scheduler.wait_for("STATUS=1 job, 0 running, 0 waiting for a slot")


def test_operators_get_at_it_by_the_client_and_by_telnet(scheduler, eventually: Eventually, backy) -> None:
    port = unused_port()
    scheduler.content["global"] |= {"telnet-addrs": "127.0.0.1", "telnet-port": port, "telnet-read-only": True}
    scheduler.plugin("drives", DRIVES)
    scheduler.job("vm1")
    scheduler.start()
    assert scheduler.status().console == (f"127.0.0.1:{port}",)
    assert backy("client", "-c", scheduler.configuration, "run", "vm1").out == "Triggered immediate run for vm1\n"
    assert json.loads(backy("client", "-c", scheduler.configuration, "--json", "status").out)["pid"]
    assert backy("client", "-c", scheduler.configuration, "run", "vm2").err.startswith("Error: Unknown job vm2")
    assert backy("client", "-c", scheduler.configuration, "drives", "2").out == "2 drives\n"
    scheduler.done("vm1")

    with subprocess.Popen(["telnet", "127.0.0.1", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as telnet:
        telnet.stdin.write(b"jobs ^vm\nrun vm1\ndrives 3\nquit\n")
        telnet.stdin.flush()
        said = telnet.stdout.read().decode().replace("\r", "")
    assert re.search(r"^vm1 +waiting ", said, re.MULTILINE)
    assert "1 job\nbacky> 'run' is switched off here" in said
    assert "3 drives\nbacky> Goodbye.\n" in said

    scheduler.content["global"]["telnet-addrs"] = ""
    scheduler.reload()
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port), timeout=60)


DRIVES = """
    from backy.api import ConsoleCommand
    from backy.hookspecs import hookimpl

    @hookimpl
    def backy_console_commands():
        yield ConsoleCommand("drives", "Count drives.", lambda words: f"{words[0]} drives")
"""


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="NOT TESTED: FUSE needs root here")
def test_a_repository_on_a_disk_that_hangs_stops_neither_the_others_nor_the_end(scheduler) -> None:
    # a file system that nobody answers for any more, as of an NFS server that is gone
    scheduler.job("dead")
    scheduler.job("live")
    mountpoint = scheduler.base / "dead"
    mountpoint.mkdir()
    command = [sys.executable, "-m", "tests.hanging", str(mountpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == b"mounted\n"
            server.send_signal(signal.SIGSTOP)
            scheduler.start()
            scheduler.ask("run", "live")
            assert scheduler.done("live").revisions == 1
            assert scheduler.stop() == 0
        finally:
            server.send_signal(signal.SIGCONT)
            subprocess.run(["umount", "-l", mountpoint], check=True)


def test_metrics_are_written_where_they_are_wanted(scheduler, eventually: Eventually) -> None:
    scheduler.content["global"]["metrics-file"] = str(scheduler.folder / "backy.prom")
    scheduler.job("vm1")
    scheduler.start()
    assert 'backy_job_failures{job="vm1"} 0' in (scheduler.folder / "backy.prom").read_text()


def test_a_status_that_can_not_be_written_is_told_once_and_stops_nothing(scheduler, eventually: Eventually) -> None:
    scheduler.content["global"]["status-file"] = str(scheduler.folder / "missing/status")
    scheduler.job("vm1")
    scheduler.start()
    scheduler.ask("run", "vm1")
    scheduler.done("vm1")
    assert scheduler.log.read_text().count("the status can not be written") == 1
