"""People get mail of what needs them: each thing once, until it changes, and nothing waits for the mailer."""

from __future__ import annotations

import asyncio
import email
import email.policy
import time
from collections.abc import Callable
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backy.errors import BackyError
from backy.scheduler.configuration.location import Notify
from backy.scheduler.monitoring import reporter as reporting
from backy.scheduler.monitoring.reporter import Notifier, Reporter, send
from backy.scheduler.monitoring.status import DiskStatus, Status, space
from tests.backy.scheduler.conftest import MIDNIGHT

SHORT = timedelta(seconds=1)
DISK = DiskStatus(place="/srv", size=9, free=1, growth=2, low_since=MIDNIGHT)


class Sink:
    """What sendmail is to the scheduler: it takes the addresses from the mail, and a dot alone ends nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sendmail"
        self.folder = folder / "spool"
        self.folder.mkdir()
        self.says("")

    def says(self, command: str) -> None:
        """Run a command of the shell for each mail, after it was stored."""
        self.path.write_text(
            f'#!/bin/sh\n[ "$*" = "-t -i" ] || exit 64\ncat > {self.folder}/new || exit\n'
            f"mv {self.folder}/new {self.folder}/$(ls {self.folder} | wc -l)\n{command}\n"
        )
        self.path.chmod(0o700)

    @property
    def mails(self) -> list[EmailMessage]:
        """All mails, the first one first."""
        paths = sorted(self.folder.glob("[0-9]*"), key=lambda path: int(path.name))
        return [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in paths]

    @property
    def texts(self) -> list[list[str]]:
        """The lines of all mails."""
        return [mail.get_content().splitlines() for mail in self.mails]


@pytest.fixture
def sink(tmp_path: Path) -> Sink:
    return Sink(tmp_path)


class EndError(Exception):
    """There is nothing more to look at."""


@pytest.fixture
def looks(sink: Sink, status: Callable[..., Status], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reporter]:
    """Let the scheduler look at made-up jobs, as `looks({"vm1": {"failures": 3}}, {})` for two looks."""
    found: list[Status] = []
    settings = SimpleNamespace(notify=Notify(to="root", program=sink.path))
    reporter = Reporter(
        lambda: found.pop(0), lambda: SimpleNamespace(settings=settings), lambda: SHORT, (), Notifier(None)
    )
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if not found:
            raise EndError

    def look(*jobs: dict[str, dict[str, Any]], **general: Any) -> list[float]:
        found.extend(status(one, **general) for one in jobs)
        pauses.clear()
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleep)
            with pytest.raises(EndError):
                asyncio.run(reporter._notify())
        return pauses

    look.reporter = reporter
    return look


FAILING = {"failures": 3, "error": "no such image", "failing_since": MIDNIGHT}
FAILS = (
    "vm1 (last time: 2026-01-01 00:00:00 UTC, 3 failures since 2026-01-01 00:00:00 UTC: no such image) "
    "fails again and again"
)


def test_a_mail_has_all_that_is_new_and_each_thing_is_told_once(sink: Sink, looks) -> None:
    jobs = {
        "vm1": FAILING,
        "vm2": {"sla_overdue": 60.0},
        "vm3": {"distrusted": 2, "quarantine_reports": 1},
        "vm4/drawer": {"sla_overdue": 60.0, "copy": "ssh://there/", "verb": "push"},
        "vm5/scrub": {"sla_overdue": 60.0, "verb": "scrub"},
        "vm6": {"tampering": ("revision abc was removed",)},
        "vm7": {"failures": 2, "error": "not yet"},
    }
    later = jobs | {"vm1": FAILING | {"failures": 4}, "vm2": {"sla_overdue": 3660.0}}
    assert looks(jobs, later, later, disk=DISK) == [600, 1, 1]
    (mail,) = sink.mails
    assert mail["To"] == "root"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Subject"].startswith("backy on ")
    assert mail["Date"].datetime.tzinfo
    late = "(last time: 2026-01-01 00:00:00 UTC) is not within SLA"
    assert sink.texts == [
        [
            f"new: {space(DISK)}",
            f"new: {FAILS}",
            f"new: vm2 {late}",
            "new: vm3: 1 report of damage or differences in quarantine",
            "new: vm3: 2 revisions are distrusted",
            f"new: vm4/drawer {late}",
            f"new: vm5/scrub {late}",
            "new: vm6: revision abc was removed",
            "8 changes, held back for 0:00:01 at most",
        ]
    ]


def test_what_is_over_and_what_changes_is_told_and_a_burst_is_one_mail(sink: Sink, looks) -> None:
    burst = {f"vm{number}": FAILING for number in range(1, 101)}
    looks({"vm1": FAILING, "vm2": {"distrusted": 1}}, {"vm1": {}, "vm2": {"distrusted": 2}}, {}, {}, burst)
    held = "held back for 0:10:00 at most"
    assert sink.texts[1][:-1] == [
        f"over: {FAILS}",
        "over: vm2: 1 revision is distrusted",
        "new: vm2: 2 revisions are distrusted",
    ]
    assert sink.texts[1][-1] == f"3 changes, {held}"
    assert sink.texts[2:-1] == [
        ["over: vm2: 2 revisions are distrusted", f"1 change, {held}"],
    ]
    assert (len(sink.texts[-1]), sink.texts[-1][-1]) == (101, "100 changes, held back for 0:00:01 at most")


@pytest.mark.parametrize(
    "case",
    [
        ("echo 'the queue is full' >&2; exit 75", "the mailer ended with exit code 75 and printed: the queue is full"),
        ("exit 1", "the mailer ended with exit code 1 and printed: nothing"),
        ("sleep 60", "took longer than 0:00:00.200000 and was ended"),
    ],
)
def test_a_mailer_that_fails_or_hangs_is_tried_again(sink: Sink, looks, monkeypatch, case: tuple[str, str]) -> None:
    command, why = case
    monkeypatch.setattr(reporting, "LIMIT", timedelta(seconds=0.2))
    sink.says(command)
    assert looks({"vm1": FAILING}) == [600]
    assert looks.reporter.failures == {"mail": f"mail is held back: {why}"}
    sink.says("")
    assert looks({"vm1": FAILING}, {"vm1": FAILING}) == [600, 1]
    assert looks.reporter.failures == {}
    assert sink.texts[1:] == [[f"new: {FAILS}", "1 change, held back for 0:00:01 at most", f"mail is held back: {why}"]]


def test_a_mail_that_can_not_be_made_ends_nothing(sink: Sink, looks, monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(*_: object) -> str:
        raise UnicodeEncodeError("ascii", "ä", 0, 1, "made up")

    with monkeypatch.context() as patch:
        patch.setattr(reporting, "send", send)
        looks({"vm1": FAILING})
    assert "made up" in looks.reporter.failures["mail"]
    looks({"vm1": FAILING})
    assert len(sink.mails) == 1


def test_what_was_told_is_written_soon_as_a_restart_may_follow(looks) -> None:
    looks({"vm1": {}})
    assert not looks.reporter._changed.is_set()
    looks({"vm1": FAILING})
    assert looks.reporter._changed.is_set()


def test_a_status_that_no_file_can_have_ends_nothing(tmp_path: Path, status, caplog) -> None:
    found = status({"vm1": FAILING | {"error": "\udcff"}})
    settings = SimpleNamespace(status_path=tmp_path / "status", metrics_file=None)
    reporter = Reporter(lambda: found, lambda: SimpleNamespace(settings=settings), lambda: SHORT, (), Notifier(None))
    for _ in range(2):
        asyncio.run(reporter.write())
    assert caplog.text.count("the status can not be written: ") == 1


def test_a_mailer_that_is_missing_is_told(sink: Sink, looks) -> None:
    sink.path.unlink()
    looks({"vm1": FAILING})
    assert looks.reporter.failures == {"mail": f"mail is held back: [Errno 2] No such file or directory: '{sink.path}'"}


def test_a_daemon_that_the_mailer_leaves_behind_is_not_waited_for(sink: Sink, looks) -> None:
    sink.says("sleep 9 & exit 0")
    begin = time.monotonic()
    looks({"vm1": FAILING})
    assert looks.reporter.failures == {}
    assert time.monotonic() - begin < 8


@pytest.mark.parametrize(
    "evil",
    [
        "vm1\nBcc: everybody@example.org\n\nbody",
        "vm1\r\nBcc: everybody@example.org",
        "vm1\x85Bcc: everybody@example.org",
        "vm1\u2028Bcc: everybody@example.org",
        "vm1\0\x1b[31m",
        "\udcff\udc80",
        "ä" * 200,
        "x" * 5000,
        ".\n.\nFrom somebody",
        "=?utf-8?q?=0ABcc:x?=",
        "=?unknown-8bit?q?=ff?=ä",
    ],
)
def test_no_name_gets_out_of_its_line(sink: Sink, looks, evil: str) -> None:
    looks({"vm1": FAILING | {"error": evil}, evil: FAILING})
    assert looks.reporter.failures == {}
    (mail,) = sink.mails
    assert set(mail.keys()) == {
        "To", "Date", "Auto-Submitted", "Subject", "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert mail["Subject"].isprintable()
    assert [line.partition(" ")[0] for line in sink.texts[0]] == ["new:", "new:", "2"]


def test_what_a_mailer_prints_is_shown_in_a_line(sink: Sink) -> None:
    sink.says("printf 'queued\\nas \\033[31m1\\n'")
    assert asyncio.run(send(Notify(to="root", program=sink.path), ["text"])) == "queued\\nas \\x1b[31m1"
    sink.says("kill -9 $$")
    with pytest.raises(BackyError, match="exit code -9"):
        asyncio.run(send(Notify(to="root", program=sink.path), ["text"]))


def test_a_scheduler_sends_mail_and_no_job_waits_for_it(scheduler, sink: Sink, eventually) -> None:
    sink.says("sleep 600")
    notify = {"to": "root, ops@example.org", "program": str(sink.path), "failures": 1, "per-hour": 3600}
    scheduler.content["global"]["notify"] = notify
    image = scheduler.job("vm1")
    scheduler.job("vm2")
    image.rename(scheduler.folder / "elsewhere")
    scheduler.start()
    scheduler.ask("run", "vm1")
    eventually(lambda: sink.mails)
    scheduler.ask("run", "vm2")
    scheduler.done("vm2")
    assert scheduler.stop() == 0
    assert scheduler.children() == []
    # it was not told, as the mailer did not end
    sink.says("")
    scheduler.start()
    eventually(lambda: len(sink.mails) == 2 and scheduler.status().notices)
    assert [mail["To"] for mail in sink.mails] == ["root, ops@example.org"] * 2
    assert f"source {image}: No such file or directory) fails again and again" in sink.texts[1][0]
    (scheduler.folder / "elsewhere").rename(image)
    scheduler.ask("run", "vm1")
    eventually(lambda: len(sink.mails) == 3)
    assert sink.texts[2][0].startswith("over: vm1 (last time: ")


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{}", "global.notify: object missing required field `to`"),
        ('{to: "root\\nBcc: x"}', "global.notify: expected text matching"),
        ("{to: root@}", "global.notify: expected text matching"),  # Python's parser fails at both
        ("{to: ' .,'}", "global.notify: expected text matching"),
        ("{to: [root]}", "global.notify: expected text, got {'to': ['root']}"),
        ("{to: root, progam: /bin/true}", "global.notify: object contains unknown field `progam`"),
        ("{to: root, program: sendmail}", "global.notify: 'sendmail' is no absolute path"),
        ("{to: root, program: /no/such}", "global.notify.program: there is no program /no/such"),
        ("{to: root, program: /etc/passwd}", "global.notify.program: /etc/passwd is not executable"),
        ("{to: root, failures: 0}", "global.notify: expected a whole number of at least 1, got"),
        ("{to: root, per-hour: often}", "global.notify: expected a whole number, got"),
    ],
)
def test_a_wrong_section_is_refused_with_its_line(tmp_path: Path, backy, section: str, problem: str) -> None:
    path = tmp_path / "backy.conf"
    path.write_text(
        f"global:\n  base-dir: {tmp_path}\n  telnet-addrs: ''\n  notify: {section}\n"
        "schedules: {a: {b: {interval: 1d, keep: 1}}}\njobs: {}\n"
    )
    done = backy("check-config", "-c", path)
    assert f"{path}:4: {problem}" in done.out + done.err
    assert done.code != 0
