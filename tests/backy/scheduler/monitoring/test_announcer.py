"""A scheduler tells event plugins of everything that operators want to be told of."""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from backy.plugins.events import Events
from backy.scheduler.monitoring import reporter
from backy.scheduler.monitoring.reporter import Announcer, SlaWatch

NOW = datetime(2026, 1, 1, tzinfo=UTC)

PAGER = """
    import json
    from backy.hookspecs import hookimpl
    @hookimpl
    def backy_job_finished(job, outcome, error, failures, next_time, config):
        with open(config["file"], "a") as stream:
            stream.write(json.dumps([job.name, outcome, error, failures, next_time is not None]) + "\\n")
"""
UNFIT = {
    "exits": "import os; os._exit(1)",
    "crashes": "import os; os.kill(os.getpid(), 11)",
}
SOURCE = """
    import os, time
    from backy.api import *
    from backy.hookspecs import hookimpl
    class Bad:
        verifier = "full"
        def __init__(self, do): self.do = do
        def snapshot(self, revision_id, parent):
            if self.do == "crash": os.kill(os.getpid(), 11)
            if self.do == "hang": time.sleep(600)
            raise OSError(28, "No space left on device")
    @hookimpl
    def backy_source(config): return Bad(config["do"])
    @hookimpl
    def backy_source_config(argument): return {}
"""


def source(scheduler, distribution: str, name: str, code: str) -> None:
    """Install a source for the scheduler and its children."""
    metadata = scheduler.folder / f"site/{distribution}-1.0.dist-info"
    metadata.mkdir(parents=True)
    module = distribution.replace("-", "_")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[backy.sources]\n{name} = {module}\n")
    (scheduler.folder / f"site/{module}.py").write_text(dedent(code))


@pytest.fixture
def told(scheduler) -> Callable[[], dict[str, list]]:
    """What the pager has been told last, by job; it is installed, and so are plugins that are unfit."""
    path = scheduler.folder / "told"
    scheduler.plugin("pager", PAGER)
    scheduler.content["hooks"] = {"pager": {"file": str(path)}}

    def read() -> dict[str, list]:
        lines = path.read_text().splitlines() if path.exists() else []
        return {line[0]: line[1:] for line in map(json.loads, lines)}

    return read


def test_hook_backy_job_finished_is_told_of_every_cause(scheduler, told: Callable, eventually: Callable) -> None:
    source(scheduler, "broken", "broken", "raise ImportError('no library')")
    source(scheduler, "one", "both", SOURCE)
    source(scheduler, "two", "both", SOURCE)
    source(scheduler, "bad", "bad", SOURCE)
    scheduler.content["global"]["worker-limit"] = 8
    scheduler.job("done")
    scheduler.job("busy")
    for name, section in {
        "broken": {"type": "broken"},
        "unknown": {"type": "nonsense"},
        "conflict": {"type": "both", "do": ""},
        "signal": {"type": "bad", "do": "crash"},
        "standstill": {"type": "bad", "do": "hang"},
        "full": {"type": "bad", "do": "full"},
    }.items():
        scheduler.job(name, source=section, **({"standstill": 5} if name == "standstill" else {}))
    (scheduler.base / "busy").mkdir()
    with (scheduler.base / "busy/.backup").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scheduler.start()
        for name in scheduler.content["jobs"]:
            scheduler.ask("run", name)
        eventually(lambda: len(told()) == 8)

    found = told()
    assert found.pop("done") == ["done", None, 0, True]
    assert (found["busy"][0], found["busy"][2]) == ("busy", 0)
    assert {name: line[0] for name, line in found.items() if name != "busy"} == dict.fromkeys(
        ("broken", "unknown", "conflict", "signal", "standstill", "full"), "failed"
    )
    for name, text in {
        "broken": "ImportError: no library",
        "unknown": "no source 'nonsense'",
        "conflict": "claimed by one 1.0 and two 1.0",
        "signal": "ended by signal 11",
        "standstill": "the backup read or stored nothing for 0:00:05 and was ended",
        "full": "No space left on device",
    }.items():
        assert text in found[name][1]
    log = scheduler.log.read_text()
    for name, line in found.items():
        assert any(f"{name}: " in one and line[1] in one for one in log.splitlines()), (name, line)


@pytest.mark.parametrize("unfit", UNFIT)
def test_an_unfit_hook_delays_no_job_and_ends_nothing(
    unfit: str, scheduler, told: Callable, eventually: Callable
) -> None:
    hook = "from backy.hookspecs import hookimpl\n@hookimpl\ndef backy_job_finished(): " + UNFIT[unfit]
    scheduler.plugin("aaa" + unfit, hook)
    scheduler.job("vm1")
    scheduler.start()
    scheduler.ask("run", "vm1")
    scheduler.done("vm1")
    scheduler.ask("run", "vm1")
    eventually(lambda: scheduler.revisions("vm1") == 2)
    eventually(told)
    assert scheduler.stop() == 0


def changes(watch: SlaWatch, status: Callable, now: datetime, **overdue: float) -> list[tuple]:
    found = status({name: {"sla_overdue": late, "last_time": None} for name, late in overdue.items()})
    return [tuple(change) for change in watch.changes(found.jobs, now)]


def test_hook_backy_job_overdue_and_recovered_are_told_once_a_change(status: Callable) -> None:
    watch = SlaWatch({}, NOW)
    since = NOW - timedelta(seconds=60)

    assert changes(watch, status, NOW, vm1=60.0, vm2=0.0) == [
        ("backy_job_overdue", "vm1", since, "vm1 (last time: -) is not within SLA")
    ]
    assert changes(watch, status, NOW, vm1=90.0, vm2=0.0) == []
    assert changes(watch, status, NOW, vm1=0.0, vm2=0.0) == [
        ("backy_job_recovered", "vm1", since, "vm1 is within SLA again")
    ]


def test_hook_backy_copy_overdue_is_told_of_a_copy(status: Callable) -> None:
    found = status({"vm1/offsite": {"sla_overdue": 60.0, "last_time": None, "copy": "ssh://backup2/vm1"}})

    assert [tuple(change) for change in SlaWatch({}, NOW).changes(found.jobs, NOW)] == [
        (
            "backy_copy_overdue",
            "vm1/offsite",
            NOW - timedelta(seconds=60),
            "vm1/offsite (last time: -) is not within SLA",
        )
    ]


def test_hook_backy_job_recovered_is_told_after_a_restart_and_overdue_not_again(status: Callable) -> None:
    before = {job.job: job for job in status({"vm1": {"sla_overdue": 60.0}}).jobs}
    watch = SlaWatch(before, NOW)

    assert changes(watch, status, NOW, vm1=70.0) == []
    assert [change[:2] for change in changes(watch, status, NOW, vm1=0.0)] == [("backy_job_recovered", "vm1")]


class Failing(Events):
    """Events that can not be told once, and are noted then."""

    noted: list[str] = []  # noqa: RUF012  # shared on purpose: the announcer makes a new one each time
    failures = 1

    def tell(self, hook: str, **arguments: object) -> None:
        if Failing.failures:
            Failing.failures -= 1
            raise OSError("no process")
        self.noted.append(hook)


def test_one_event_that_can_not_be_told_does_not_silence_the_next(tmp_path: Path) -> None:
    made = Announcer(Failing)
    made.tell("backy_job_overdue", tmp_path)
    made.tell("backy_job_recovered", tmp_path)
    made.close()

    assert Failing.noted == ["backy_job_recovered"]


def test_too_many_events_are_dropped_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reporter, "MOST_WAITING", 1)
    monkeypatch.setattr(Announcer, "_work", lambda _self: end.wait())
    end = threading.Event()
    made = Announcer(Events)
    made.tell("backy_job_overdue", tmp_path)
    made.tell("backy_job_recovered", tmp_path)
    end.set()

    assert "no plugin is told of backy_job_recovered: too many events wait" in caplog.text
