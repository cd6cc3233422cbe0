from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from backy.scheduler.monitoring.check import MOST_LINES, State, judge
from backy.scheduler.monitoring.status import write

NEW = timedelta(seconds=3)
AHEAD = "ahead of the clock, so that the schedule does not count it"


def test_all_is_well(status) -> None:
    verdict = judge(status({"vm1": {}, "vm2": {}}), NEW)
    assert str(verdict) == (
        "OK: 2 jobs within SLA | jobs=2 overdue=0 most_overdue=0s failing=0 running=1 queued=2 quarantine_reports=0 "
        "distrusted=0"
    )
    assert verdict.state == 0


def test_a_job_that_does_not_keep_its_sla_is_critical(status, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = {
        "vm1": {"sla_overdue": 7.0},
        "vm2": {"sla_overdue": 90.4, "last_time": None, "failures": 3, "error": "no space | left"},
        "vm3": {"quarantine_reports": 1},
        "vm4": {},
    }
    verdict = judge(status(jobs), NEW)
    assert verdict.state == 2
    first, *details = str(verdict).splitlines()
    assert first.startswith("CRITICAL: 2 jobs not within SLA | jobs=4 overdue=2 most_overdue=90s failing=1 ")
    assert re.fullmatch(r"vm1 \(last time: 2026-01-01 ..:..:.. \w+\)", details[0])
    assert details[1:] == [
        "vm2 (last time: -, 3 failures: no space / left)",
        "vm3: 1 report of damage or differences in quarantine",
    ]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"quarantine_reports": 2}, "vm1: 2 reports of damage or differences in quarantine"),
        (
            {"remarks": ("e2fsck: 3 faults", "e2fsck: old", "e2fsck: big")},
            "vm1: a verifier remarks on the newest revision: e2fsck: 3 faults and 2 more remarks",
        ),
        (
            {"partly_verified": True, "verification": "verified partly, 3 of 9 chunks"},
            "vm1: the newest revision is verified partly, 3 of 9 chunks",
        ),
        ({"unfrozen": True}, "vm1: the newest revision is inconsistent: the source could not be brought to rest"),
        (
            {"consistency": "none"},
            "vm1: the newest revision is inconsistent: the source was written to while it was read",
        ),
        ({"distrusted": 1}, "vm1: 1 revision is distrusted"),
        ({"unreadable": 1}, "vm1: 1 record is damaged"),
        ({"ahead": ("a1", "b2", "c3")}, f"vm1: {AHEAD}: revision c3 and 2 more"),
        ({"ahead": ("a1",)}, f"vm1: {AHEAD}: revision a1"),
        (
            {"unfinished": True, "error": "'backy expire' failed after the backup: no hook 'hold' is installed"},
            "vm1: 'backy expire' failed after the backup: no hook 'hold' is installed",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_somebody_ought_to_look_at_is_a_warning(status, job: dict, said: str) -> None:
    verdict = judge(status({"vm1": job}), NEW)
    assert verdict.state == 1
    assert verdict.summary == "1 job within SLA, 1 warning"
    assert verdict.details == (said,)


@pytest.mark.parametrize(
    ("general", "said"),
    [
        ({"plugins": ("hook 'x' of y: z",)}, "broken plugin: hook 'x' of y: z"),
        ({"problems": ("no console",)}, "no console"),
        (
            {"configuration_error": "line 3"},
            r"the configuration as of .* is in force, for the newer one is wrong: line 3",
        ),
    ],
)
def test_what_is_wrong_with_the_scheduler_is_a_warning(status, general: dict, said: str) -> None:
    verdict = judge(status({"vm1": {}}, **general), NEW)
    assert verdict.state == 1
    assert re.fullmatch(said, verdict.details[0])


def test_jobs_that_fail_within_their_sla_are_figures_only(status) -> None:
    verdict = judge(status({"vm1": {"failures": 2, "error": "x"}}), NEW)
    assert verdict.state == 0
    assert "failing=1" in verdict.performance


def test_a_status_that_is_old_is_critical_whatever_it_says(status) -> None:
    assert judge(status({"vm1": {}}), timedelta(minutes=5)).state == 0
    verdict = judge(status({"vm1": {}}), timedelta(minutes=5, seconds=1))
    assert (verdict.state, verdict.summary) == (2, "Status file is older than 5 minutes")


def test_nobody_reads_ten_thousand_lines(status) -> None:
    verdict = judge(status({f"vm{number}": {"sla_overdue": 1.0} for number in range(200)}), NEW)
    assert len(verdict.details) == MOST_LINES + 1
    assert verdict.details[-1] == "... and 150 more; 'backy jobs' shows all"


def test_the_command_ends_with_the_state(status, tmp_path: Path, backy) -> None:
    configuration = tmp_path / "backy.conf"
    none = backy("check", "-c", configuration)
    assert (none.code, none.out) == (
        3,
        f"UNKNOWN: {configuration}, line 1: can not be read: No such file or directory\n",
    )
    configuration.write_text(f"global: {{base-dir: {tmp_path}}}")
    file = tmp_path / "status"
    none = backy("check", "-c", configuration)
    assert (none.code, none.out) == (3, f"UNKNOWN: No status file found at {file}\n")
    file.write_text("nonsense")
    assert backy("check", "-c", configuration).code == 3

    for job, state in (({}, State.OK), ({"distrusted": 1}, State.WARNING), ({"sla_overdue": 1.0}, State.CRITICAL)):
        write(file, msgspec.json.encode(status({"vm1": job})))
        result = backy("check", "-c", configuration)
        assert (result.code, result.out.partition(":")[0], result.err) == (state, state.name, "")
    os.utime(file, (0, 0))
    assert backy("check", "-c", configuration).out.startswith("CRITICAL: Status file is older than 5 minutes")


def test_a_run_longer_than_its_interval_is_a_warning(status) -> None:
    since = status({}).written - timedelta(hours=24)
    assert judge(status({"vm1": {"running_since": since}}), timedelta()).state == State.OK

    verdict = judge(status({"vm1": {"running_since": since}}), timedelta(seconds=1))

    assert verdict.state == State.WARNING
    assert re.fullmatch(r"vm1: its run of .* takes longer than its interval of 1d", verdict.details[0])
