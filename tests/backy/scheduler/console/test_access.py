"""What operators may ask of a scheduler: of one that is made up, by real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from backy.api import ConsoleCommand
from backy.errors import BackyError
from backy.repository.config import JobConfig, ScheduledTag
from backy.repository.sealed import FORMAT
from backy.scheduler.configuration.beside import Copy
from backy.scheduler.configuration.configuration import Configuration, Global, JobEntry
from backy.scheduler.console import access as module
from backy.scheduler.console.access import Access
from backy.scheduler.monitoring.status import NO_END, Status
from backy.scheduler.process.base_directory import SOCKET, Reply, SilentError, ask

ALL = "jobs, status, log, progress, run, runall, cancel, pause, resume, reload, help"


class Scheduler:
    """Two jobs, of which one runs."""

    def __init__(self, status: Status, base: Path) -> None:
        self._status = status
        schedule = {"daily": ScheduledTag(timedelta(days=1), 7)}
        jobs = {
            job.job: JobEntry(base / job.job, schedule, JobConfig(format=FORMAT, schedule=schedule))
            for job in status.jobs
        }
        self.configuration = Configuration(base, Global(base_dir=base), {}, jobs, {})
        self.runner = SimpleNamespace(doing={})
        self.triggered: list[str] = []
        self.tags: tuple[str, ...] = ()
        self.trouble = ""
        self.paused: dict[str, timedelta | None] = {}
        self.cancelled: dict[str, datetime] = {}
        """When jobs that can be cancelled are due again."""

    def status(self) -> Status:
        return self._status

    def trigger(self, names: Iterable[str], tags: Sequence[str] = ()) -> int:
        self.triggered += names
        self.tags = tuple(tags)
        return len(self.triggered) - self.triggered.count("web2")

    async def cancel(self, name: str) -> datetime:
        if name not in self.cancelled:
            raise BackyError("no run")
        return self.cancelled.pop(name)

    def pause(self, name: str, length: timedelta | None) -> datetime | None:
        self.paused[name] = length
        return length and NO_END - timedelta(days=1) + min(length, timedelta(days=1))

    async def reload(self) -> str:
        if self.trouble:
            raise BackyError(self.trouble)
        return "2 jobs"


@pytest.fixture
def scheduler(status, tmp_path: Path) -> Scheduler:
    return Scheduler(status({"db1": {}, "web2": {"status": "running (fast)", "last_time": None}}), tmp_path)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, ConsoleCommand]:
    """The commands that plugins offer."""
    commands: dict[str, ConsoleCommand] = {}

    monkeypatch.setattr(module, "console_commands", lambda _events: commands)
    return commands


@pytest.fixture
def asked(scheduler: Scheduler, tmp_path: Path) -> Callable[..., Reply]:
    """Open an access and ask one thing, as `asked("run", "db1", console=True)`."""

    def run(*words: str, console: bool = False, read_only: bool = False) -> Reply:
        async def talk() -> Reply:
            access = Access(scheduler)
            settings = Global(base_dir=tmp_path, telnet_addrs="", telnet_read_only=read_only)
            await access.open(Configuration(tmp_path / "backy.conf", settings, {}, {}, {}))
            try:
                if not console:
                    return await asyncio.to_thread(ask, tmp_path, words)
                return await access.console.answering(words)
            finally:
                access.close()

        return asyncio.run(talk())

    return run


def test_jobs_are_listed_for_people_and_for_programs(asked: Callable[..., Reply], scheduler: Scheduler) -> None:
    reply = asked("jobs")
    assert [line.split()[0] for line in reply.text.splitlines()] == ["Job", "----", "db1", "web2", "2"]
    assert reply.text.endswith("2 jobs")
    assert reply.data == {"jobs": json.loads(msgspec.json.encode(scheduler.status().jobs))}


def test_jobs_are_chosen_by_a_regular_expression(asked: Callable[..., Reply]) -> None:
    assert [job["job"] for job in asked("jobs", "^web.$").data["jobs"]] == ["web2"]
    assert asked("jobs", "nothing").text.endswith("0 jobs")
    assert asked("jobs", "(") == Reply(ok=False, text="'(' is no regular expression: missing ): (")


def test_jobs_that_fail_are_chosen(asked: Callable[..., Reply], scheduler: Scheduler) -> None:
    assert asked("jobs", "--failed").text.endswith("0 jobs")
    scheduler.status().jobs[1].failing_since = NO_END
    for words, names in (("--failed",), ["web2"]), (("--failed", "^db"), []), (("web", "--failed"), ["web2"]):
        assert [job["job"] for job in asked("jobs", *words).data["jobs"]] == names


def test_the_last_lines_of_a_log_are_shown(asked: Callable[..., Reply], tmp_path: Path) -> None:
    log = tmp_path / "db1/backy.log"
    assert asked("log", "db1") == Reply(ok=False, text=f"{log} can not be read: No such file or directory")
    log.parent.mkdir()
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    expected = [f"line {number}" for number in range(9980, 10_000)]
    assert asked("log", "db1") == Reply(ok=True, text="\n".join(expected), data={"lines": expected})
    assert asked("log", "db2").text == "Unknown job db2; did you mean 'db1'? 'jobs' lists all"
    log.unlink()
    log.symlink_to("/etc/passwd")
    assert "no regular file" in asked("log", "db1", console=True, read_only=True).text


def test_what_runs_is_shown_with_how_far_it_is(asked: Callable[..., Reply], scheduler: Scheduler) -> None:
    assert asked("progress") == Reply(ok=True, text="no job runs", data={"jobs": []})
    scheduler.runner.doing = {
        "db1": {"command": "purge"},  # what it did last
        "web2": {"command": "backup", "step": "verify", "done": 3 * 2**30, "total": 2**32},
    }
    web = scheduler.status().jobs[1]
    web.running_since = web.since
    reply = asked("progress", console=True, read_only=True)
    assert reply.text == "web2: backup, since 2026-01-01 00:00:00 UTC: verify, 3.0 GiB of 4.0 GiB"
    (told,) = asked("progress").data["jobs"]
    assert told == {"job": "web2", "since": "2026-01-01T00:00:00Z"} | scheduler.runner.doing["web2"]
    del scheduler.runner.doing["web2"]["step"]
    assert asked("progress").text == "web2: backup, since 2026-01-01 00:00:00 UTC"
    scheduler.runner.doing.clear()  # it has its slot, and no command yet
    assert asked("progress").text == "web2: begins, since 2026-01-01 00:00:00 UTC"


def test_jobs_are_counted_by_status(asked: Callable[..., Reply]) -> None:
    reply = asked("status")
    assert [line.split() for line in reply.text.splitlines()[2:]] == [
        ["running", "(fast)", "1"],
        ["waiting", "for", "deadline", "1"],
    ]
    assert reply.data["jobs"] == {"running (fast)": 1, "waiting for deadline": 1}
    assert reply.data["version"] == "3.0.0"


def test_a_job_is_run(asked: Callable[..., Reply], scheduler: Scheduler) -> None:
    assert asked("run", "db1") == Reply(ok=True, text="Triggered immediate run for db1", data={"triggered": 1})
    assert scheduler.triggered == ["db1"]
    scheduler.triggered.clear()
    assert asked("run", "web2").text == "web2 runs already"
    assert asked("run", "db2") == Reply(ok=False, text="Unknown job db2; did you mean 'db1'? 'jobs' lists all")
    assert asked("run", "xyz") == Reply(ok=False, text="Unknown job xyz; 'jobs' lists all")


def test_a_job_is_run_with_other_tags_than_those_that_are_due(
    asked: Callable[..., Reply], scheduler: Scheduler, tmp_path: Path
) -> None:
    reply = asked("run", "db1", "manual:a, daily,daily")
    assert (reply.text, scheduler.tags) == ("Triggered immediate run for db1", ("daily", "manual:a"))
    scheduler.triggered.clear()
    assert asked("run", "web2", "daily") == Reply(ok=False, text="web2 runs already", data={"triggered": 0})
    for tags, said in (
        ("dayly", "unknown tag 'dayly'; did you mean 'daily'? the schedule has: daily. 'manual:dayly' never expires"),
        ("daily,", "'' can be no tag"),
        ("", "'' can be no tag"),
        ("manual:", "'manual:' can be no tag"),
    ):
        assert (reply := asked("run", "db1", tags)).text.startswith(said)
        assert not reply.ok
    entry = JobEntry(tmp_path / "db1", {}, JobConfig(format=FORMAT), beside=Copy(to="/srv/copy"))
    scheduler.configuration.jobs["db1"] = entry
    assert asked("run", "db1", "daily").text == "db1 makes no revisions of its own, and takes no tags"
    assert scheduler.triggered == ["web2"]


def test_a_run_is_cancelled_and_it_is_told_when_the_next_one_is(
    asked: Callable[..., Reply], scheduler: Scheduler
) -> None:
    scheduler.cancelled = {"web2": NO_END - timedelta(days=1)}
    reply = asked("cancel", "web2")
    assert reply.text == "web2 is cancelled and waits until 9998-12-31 00:00:00 UTC"
    assert reply.data == {"next_time": "9998-12-31T00:00:00Z"}
    assert asked("cancel", "web2") == Reply(ok=False, text="no run")
    scheduler.cancelled = {"web2": NO_END}
    assert not asked("cancel", "web2", console=True, read_only=True).ok
    assert asked("cancel", "web2").text == "web2 is cancelled and waits until 'resume web2'"


def test_a_job_is_paused_for_a_time_or_until_it_is_resumed(asked: Callable[..., Reply], scheduler: Scheduler) -> None:
    for words in (("pause", "db1", "--for", "3h"), ("pause", "db1", "3h")):
        reply = asked(*words)
        assert (reply.text, reply.data) == (
            "db1 is paused until 9998-12-31 03:00:00 UTC",
            {"paused": "9998-12-31T03:00:00Z"},
        )
        assert scheduler.paused.pop("db1") == timedelta(hours=3)
    assert asked("pause", "db1").text == "db1 is paused until 'resume db1'"
    assert asked("resume", "db1") == Reply(ok=True, text="db1 goes on", data={"paused": None})
    assert scheduler.paused == {"db1": None}
    assert asked("pause", "db2").text == "Unknown job db2; did you mean 'db1'? 'jobs' lists all"
    assert (
        asked("pause", "db1", "soon").text == "'soon' is no duration; write a number and s, m, h, d or w, as in '30m'"
    )
    assert not asked("pause", "db1", console=True, read_only=True).ok


def test_all_jobs_are_run(asked: Callable[..., Reply]) -> None:
    assert asked("runall") == Reply(ok=True, text="Triggered immediate run for 1 job", data={"triggered": 1})


def test_a_reload_says_what_came_of_it(asked: Callable[..., Reply], scheduler: Scheduler) -> None:
    assert asked("reload") == Reply(ok=True, text="Reloaded: 2 jobs")
    scheduler.trouble = "line 3 is wrong"
    assert asked("reload") == Reply(ok=False, text="line 3 is wrong")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), f"no such command ''; there are: {ALL}"),
        (
            ("jabs",),
            f"no such command 'jabs'; did you mean 'jobs'? there are: {ALL}",
        ),
        (("run",), "write: run JOB [TAGS]"),
        (("run", "a", "b", "c"), "write: run JOB [TAGS]"),
        (("jobs", "a", "b"), "write: jobs [--failed] [REGEX]"),
        (("status", "a"), "write: status"),
    ],
)
def test_what_is_not_understood_is_explained(asked: Callable[..., Reply], offered, words, said: str) -> None:
    assert asked(*words) == Reply(ok=False, text=said)


@pytest.mark.parametrize("words", [("run", "db1"), ("runall",), ("reload",)])
def test_the_console_can_be_kept_from_changing_anything(
    asked: Callable[..., Reply], scheduler: Scheduler, words: tuple[str, ...]
) -> None:
    refused = asked(*words, console=True, read_only=True)
    assert (
        refused.text == f"'{words[0]}' is switched off here, as it changes something; 'backy client {words[0]}' does it"
    )
    assert asked(*words, read_only=True).ok
    assert asked(*words, console=True).ok
    assert asked("jobs", console=True, read_only=True).ok


def test_what_the_console_changes_is_logged(asked: Callable[..., Reply], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    asked("run", "db1", console=True)
    asked("jobs", console=True)
    assert [record.message for record in caplog.records] == ["console: run db1"]


def test_what_the_console_refuses_is_logged_once_a_minute_and_shortened(
    scheduler: Scheduler, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, offered
) -> None:
    async def flood() -> None:
        access = Access(scheduler)
        settings = Global(base_dir=tmp_path, telnet_addrs="", telnet_read_only=True)
        await access.open(Configuration(tmp_path / "backy.conf", settings, {}, {}, {}))
        for _ in range(1000):
            assert not (await access.console.answering(["run", *("x" * 50 for _ in range(80))])).ok
        monkeypatch.setattr(module, "NOTE_INTERVAL", timedelta())
        assert not (await access.console.answering(["runall"])).ok
        access.close()

    caplog.set_level(logging.INFO)
    asyncio.run(flood())
    first, second = (record.message for record in caplog.records if record.message.startswith("console: "))
    assert first == f"console: refused: run {'x' * 50} ... (1 command since the last such line)"
    assert second == "console: refused: runall (1000 commands since the last such line)"


def test_help_has_all_commands_also_those_of_plugins(asked: Callable[..., Reply], offered) -> None:
    offered["drives"] = ConsoleCommand("drives", "Show the drives.", lambda words: f"drives {words}", changes=True)
    reply = asked("help")
    assert "drives [ARGUMENT]...      Show the drives." in reply.text.splitlines()
    assert list(reply.data) == [
        "drives [ARGUMENT]...", "jobs [--failed] [REGEX]", "status", "log JOB", "progress", "run JOB [TAGS]",
        "runall", "cancel JOB", "pause JOB [--for] [TIME]", "resume JOB", "reload", "help",
    ]  # fmt: skip
    assert asked("drives", "1", "2").text == "drives ['1', '2']"
    assert not asked("drives", console=True, read_only=True).ok


def test_a_plugin_can_not_take_the_place_of_a_command(
    asked: Callable[..., Reply], offered, caplog: pytest.LogCaptureFixture
) -> None:
    offered["runall"] = ConsoleCommand("runall", "Nonsense.", lambda words: "nonsense")
    assert asked("runall").text == "Triggered immediate run for 1 job"
    assert "the console has a command 'runall' of its own" in caplog.text


def test_a_command_of_a_plugin_may_fail(asked: Callable[..., Reply], offered) -> None:
    def fail(words: object) -> str:
        raise BackyError("no drive")

    offered["fail"] = ConsoleCommand("fail", "Fail.", fail)
    assert asked("fail") == Reply(ok=False, text="no drive")


def test_nobody_waits_for_ever_for_a_command_of_a_plugin(
    asked: Callable[..., Reply], offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()
    offered["wait"] = ConsoleCommand("wait", "Wait.", lambda words: str(end.wait()))
    monkeypatch.setattr(module, "PLUGIN_LIMIT", module.PLUGIN_LIMIT / 1000)
    assert asked("wait") == Reply(ok=False, text="'wait' takes too long")
    end.set()


def test_only_the_owner_may_use_the_socket_and_its_path_may_be_long(scheduler: Scheduler, tmp_path: Path) -> None:
    base = tmp_path / ("x" * 200)
    base.mkdir()
    (base / SOCKET).write_text("left behind")

    async def talk() -> tuple[int, Reply]:
        access = Access(scheduler)
        await access.open(Configuration(tmp_path, Global(base_dir=base, telnet_addrs=()), {}, {}, {}))
        mode = (base / SOCKET).stat().st_mode & 0o777
        reply = await asyncio.to_thread(ask, base, ["status"])
        access.close()
        return mode, reply

    mode, reply = asyncio.run(talk())
    assert mode == 0o600
    assert reply.ok


@pytest.mark.parametrize(
    "sent", [b"nonsense\n", b'{"command": 3}\n', b"\xff\n", b'{"command": ["status"]', b"x" * 100_000]
)
def test_a_question_that_is_none_harms_nobody(scheduler: Scheduler, tmp_path: Path, sent: bytes) -> None:
    async def talk() -> tuple[bytes, Reply]:
        access = Access(scheduler)
        await access.open(Configuration(tmp_path, Global(base_dir=tmp_path, telnet_addrs=()), {}, {}, {}))
        reader, writer = await asyncio.open_unix_connection(tmp_path / SOCKET)
        writer.write(sent)
        writer.write_eof()
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
        writer.close()
        reply = await asyncio.to_thread(ask, tmp_path, ["status"])
        access.close()
        return answer, reply

    answer, reply = asyncio.run(talk())
    assert answer == b"" or not json.loads(answer)["ok"]
    assert reply.ok


@pytest.mark.parametrize("sent", [b"", b'{"ok": true, "te', b'{"ok": true'])
def test_an_answer_that_is_cut_off_is_none(tmp_path: Path, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / SOCKET))
        listening.listen()

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(sent)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SilentError, match="has ended before it answered"):
            ask(tmp_path, ["status"])
        thread.join()


def test_that_nobody_answers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackyError, match=r"no scheduler answers at .*: No such file or directory; does one run"):
        ask(tmp_path, ["status"])
    with pytest.raises(BackyError, match=r"no scheduler answers at .*; does one run"):
        ask(tmp_path / "missing", ["status"])
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / SOCKET))
    with pytest.raises(BackyError, match="Connection refused"):
        ask(tmp_path, ["status"])
