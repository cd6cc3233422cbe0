"""The pages about the scheduler say all that it has, and nothing that it does not have."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backy.answers.replay import Head
from backy.scheduler.console import telnet as console
from backy.scheduler.console.access import COMMANDS
from backy.scheduler.jobs.agenda import Phase
from backy.scheduler.jobs.ledger import ROUND
from backy.scheduler.monitoring.check import MOST_LINES, PUT_OFF, State
from backy.scheduler.monitoring.metrics import HEADS, JOB_METRICS, POOL_METRICS, render
from backy.scheduler.monitoring.status import DiskStatus, JobStatus, PoolStatus, Status, age_allowed
from tests.judging import judge

DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = DOCS / "reference"
EXAMPLES = DOCS / "examples"


DISK = DiskStatus(place="/srv", size=9, free=1, growth=2, low_since=datetime(2026, 1, 1, tzinfo=UTC))


def table(page: str, heading: str) -> dict[str, list[str]]:
    """Return the rows below a heading of a page by their first cell, the text in backticks."""
    _, found, section = (REFERENCE / page).read_text().partition(f"\n## {heading}\n")
    assert found, f"{page} has no heading '## {heading}'"
    lines = re.findall(r"^\| (.*) \|$", section.partition("\n## ")[0], re.MULTILINE)
    return {cells[0].strip("`"): cells[1:] for cells in (re.split(r" \| ?", line) for line in lines[1:])}


def type_of(schema: dict[str, Any]) -> str:
    """Say what a JSON schema says."""
    if "anyOf" in schema:
        return ", ".join(sorted(map(type_of, schema["anyOf"]), key="null".__eq__))
    if schema.get("type") == "array":
        return f"list of {type_of(schema['items'])}s"
    if "enum" in schema:
        return "text"
    words = {"string": "text", "integer": "number", "number": "number", "boolean": "true, false", "null": "null"}
    return words.get(schema.get("type", ""), "object")


@pytest.mark.parametrize(
    ("heading", "struct"), [("The object", Status), ("pools", PoolStatus), ("jobs", JobStatus), ("disk", DiskStatus)]
)
def test_every_member_of_the_status_file_is_explained_with_its_type(heading: str, struct: type[msgspec.Struct]) -> None:
    members = msgspec.json.schema(struct)["$defs"][struct.__name__]["properties"]
    documented = table("scheduler-status.md", heading)
    assert {name: cells[0] for name, cells in documented.items()} == {
        name: type_of(schema) for name, schema in members.items()
    }
    assert list(documented) == list(struct.__struct_fields__)


def test_every_status_is_explained() -> None:
    assert set(table("scheduler-status.md", "status")) == set(Phase)


def test_every_metric_is_explained(status) -> None:
    sizes = dict.fromkeys(("image", "changed", "stored", "occupied", "shared", "max_size"), 1)
    drilled = {"drilled": datetime(2026, 1, 1, tzinfo=UTC), "first_sign": 9.0, "restore_seconds": 60.0}
    text = render(status({"vm1": {**sizes, **drilled, "head": Head("id", 1, "ab")}}, disk=DISK))
    written = set(re.findall(r"^(\w+)", text, re.MULTILINE))
    documented = {name: heading for heading in ("Scheduler", "Pools", "Jobs") for name in table("metrics.md", heading)}
    assert set(documented) == written
    assert {name for name, heading in documented.items() if heading == "Jobs"} == {*JOB_METRICS, HEADS}
    assert {name for name, heading in documented.items() if heading == "Pools"} == set(POOL_METRICS)


def test_every_figure_of_the_check_is_explained(status) -> None:
    figures = re.findall(r"(\w+)=", judge(status({}, disk=DISK, copies=("copy",)), age_allowed(30)).performance)
    assert list(table("check.md", "Performance data")) == figures


def test_every_state_of_the_check_is_explained() -> None:
    rows = re.findall(r"^\| (\d) \| `(\w+)` \|", (REFERENCE / "check.md").read_text(), re.MULTILINE)
    assert {int(code): name for code, name in rows} == {state.value: state.name for state in State}
    assert f"{MOST_LINES} lines of each kind" in (REFERENCE / "check.md").read_text()


def test_every_warning_of_the_check_is_explained(status) -> None:
    everything = {
        "quarantine_reports": 2,
        "partly_verified": True,
        "verification": "verified partly",
        "remarks": ("e2fsck: 3 faults", "e2fsck: old"),
        "consistency": "crash",
        "unfrozen": True,
        "distrusted": 2,
        "wrong": 2,
        "ahead": ("a1",),
        "waiting": 2,
        "drilled": datetime(2026, 1, 1, tzinfo=UTC),
        "drill_problem": "there is no kernel",
        "pinned": ("'pinned:shrunk' holds revision a1 of 2026-01-01",),
        "unreadable": 2,
        "failing_since": datetime(2026, 1, 1, tzinfo=UTC),
        "put_off_since": datetime(2026, 1, 1, tzinfo=UTC) - PUT_OFF,
        "running_since": datetime(2026, 1, 1, tzinfo=UTC),
        "interval": 60.0,
        "occupied": 99,
        "max_size": 100,
        "paused": datetime(9999, 1, 1, tzinfo=UTC),
        "error": "'backy expire' failed: why",
    }
    problems = (
        "the console can not listen at 1 port 2: why",
        "'backy overview' can not write all pages: why",
        "mail is held back: the mailer ended with exit code 75 and printed: why",
        "vm1: the repository can not be looked at: why",
        "the fast backups of a day take 9:00:00, which does not fit into 22:00-06:00",
        "vm1: since 2026-01-01 00:00:00 UTC: hook 'x' failed in backy_job_finished: why",
    )
    found = status({"vm1": everything}, configuration_error="why", problems=problems, plugins=("why",), disk=DISK)
    verdict = judge(found, age_allowed(30), "no scheduler answers at /srv/backy/.socket: why; does one run?")
    patterns = [re.escape(text).replace(r"\.\.\.", ".*") for text in table("check.md", "Warnings")]
    assert verdict.state is State.WARNING
    assert [line for line in verdict.details if not any(re.match(pattern, line) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(re.match(pattern, line) for line in verdict.details)] == []


def test_every_command_of_the_console_is_explained() -> None:
    documented = table("console.md", "Commands")
    written = {f"{name} {command.arguments}".rstrip(): command for name, command in COMMANDS.items()}
    assert list(documented) == [*written, "help"]
    for usage, command in written.items():
        assert documented[usage][0] == command.help
        assert (documented[usage][1:] == ["yes"]) is command.changes


def test_the_limits_of_the_console_are_those_that_are_told() -> None:
    page = " ".join((REFERENCE / "console.md").read_text().split())
    assert f"nothing for {console.SILENCE.seconds // 60} minutes" in page
    assert f"more than {console.SLOWNESS.seconds} seconds" in page
    assert f"more than {console.LONGEST_LINE} bytes" in page
    assert f"can be {console.MOST_CLIENTS} clients" in page


def test_where_the_page_of_the_scheduler_has_figures_they_are_right() -> None:
    assert ROUND.seconds == 600
    page = " ".join((DOCS / "explanation/scheduler.md").read_text().split())
    assert "within ten minutes" in page


@pytest.mark.parametrize("name", ["backy.service", "backy-mount.service"])
def test_the_units_are_ones_that_systemd_takes(tmp_path: Path, name: str) -> None:
    unit = (EXAMPLES / name).read_text()
    program = Path(sys.executable).with_name("backy")
    (tmp_path / name).write_text(unit.replace("/usr/local/bin/backy", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", tmp_path / name], check=False, capture_output=True, text=True)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "backy" in line]) == (0, [])


def test_the_logs_are_what_logrotate_rotates(tmp_path: Path) -> None:
    text = (EXAMPLES / "backy.logrotate").read_text()
    for name in ("var/log", "srv/backy/vm1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "backy.log").write_text("something\n")
    path = tmp_path / "backy"
    path.write_text(re.sub(r"(?<=[ \n])/(?=srv|var)", f"{tmp_path}/", text).replace("su root root\n", ""))
    path.chmod(0o644)
    command = ["logrotate", "--force", "--state", tmp_path / "state", path]
    subprocess.run(command, check=True, capture_output=True)
    assert sorted(str(log.relative_to(tmp_path)) for log in tmp_path.rglob("*.log*")) == [
        "srv/backy/vm1/backy.log.1",
        "var/log/backy.log.1",
    ]
    debugged = subprocess.run(
        ["logrotate", "-d", EXAMPLES / "backy.logrotate"], check=True, capture_output=True, text=True
    )
    assert "error" not in debugged.stderr
