from __future__ import annotations

import itertools
import os
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.answers.replay import Head
from backy.scheduler.monitoring.check import MOST_LINES, PUT_OFF, State
from backy.scheduler.monitoring.status import DiskStatus, write
from backy.text.phrases import local_time
from tests.judging import FILE, judge

NEW = timedelta(seconds=3)
NEVER = datetime(2030, 1, 1, tzinfo=UTC)
SINCE = datetime(2025, 12, 1, tzinfo=UTC)
AHEAD = "ahead of the clock, so that the schedule does not count it"


def test_all_is_well(status) -> None:
    verdict = judge(status({"vm1": {}, "vm2": {}}), NEW)
    assert str(verdict) == (
        "OK: 2 jobs within SLA | jobs=2 overdue=0 most_overdue=0s failing=0 running=1 queued=2 quarantine_reports=0 "
        "distrusted=0 wrong=0"
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
    assert first.startswith("CRITICAL: 2 jobs not within SLA | jobs=4 overdue=2 most_overdue=93s failing=1 ")
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
            "vm1: a remark on the newest revision: e2fsck: 3 faults and 2 more remarks",
        ),
        (
            {"partly_verified": True, "verification": "verified partly, 3 of 9 chunks", "compared_since": None},
            "vm1: the newest revision is verified partly, 3 of 9 chunks; a part of it never was",
        ),
        (
            {"partly_verified": True, "verification": "verified partly", "compared_since": SINCE},
            f"vm1: the newest revision is verified partly; all was compared since {local_time(SINCE, zone=True)}",
        ),
        ({"unfrozen": True}, "vm1: the newest revision is inconsistent: the source could not be brought to rest"),
        (
            {"consistency": "none"},
            "vm1: the newest revision is inconsistent: the source was written to while it was read",
        ),
        ({"distrusted": 1}, "vm1: 1 revision is distrusted"),
        (
            {"wrong": 2},
            "vm1: 2 revisions are wrong: the source hid a change, 'backy status' names them",
        ),
        ({"unreadable": 1}, "vm1: 1 record is damaged"),
        (
            {"occupied": 90 * 2**30, "max_size": 100 * 2**30},
            "vm1: its repository takes 90.0 GiB, and max-size is 100.0 GiB",
        ),
        (
            {"drilled": SINCE, "drill_problem": "there is no kernel"},
            f"vm1: the drill of {local_time(SINCE, zone=True)} failed: there is no kernel",
        ),
        ({"pinned": ("'pinned:shrunk' holds revision a1",)}, "vm1: 'pinned:shrunk' holds revision a1"),
        ({"ahead": ("a1", "b2", "c3")}, f"vm1: {AHEAD}: revision c3 and 2 more"),
        ({"ahead": ("a1",)}, f"vm1: {AHEAD}: revision a1"),
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


SINCE = datetime(2025, 12, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(("failures", "times"), [(1, ", 1 time in a row"), (7, ", 7 times in a row"), (0, "")])
def test_each_job_that_fails_is_named_from_the_first_failure_on(status, failures: int, times: str) -> None:
    """Without failures in a row it is what follows a backup that fails: expiry, purge, callback, hooks."""
    failing = {"failures": failures, "unfinished": not failures, "error": "no | space", "failing_since": SINCE}
    verdict = judge(status({"vm1": failing, "vm2": failing, "vm3": {}}), NEW)
    assert (verdict.state, verdict.summary) == (State.WARNING, "3 jobs within SLA, 2 warnings")
    since = local_time(SINCE, zone=True)
    assert verdict.details == tuple(f"{name}: fails since {since}{times}: no / space" for name in ("vm1", "vm2"))


def test_a_late_job_that_fails_is_told_of_once_and_with_all(status) -> None:
    failing = {"failures": 2, "error": "why", "failing_since": SINCE, "sla_overdue": 1.0}
    (line,) = judge(status({"vm1": failing}), NEW).details
    assert line.endswith(f", 2 failures since {local_time(SINCE, zone=True)}: why)")


def test_a_late_job_whose_last_run_found_another_command_says_so(status) -> None:
    (line,) = judge(status({"vm1": {"sla_overdue": 1.0, "error": "/srv/vm1 is busy"}}), NEW).details
    assert line.endswith(", /srv/vm1 is busy)")


def test_no_lesser_warning_hides_a_job_that_fails(status) -> None:
    lesser = {f"a{number}": {"distrusted": 1} for number in range(2 * MOST_LINES)}
    verdict = judge(status({**lesser, "z": {"failures": 1, "error": "why", "failing_since": SINCE}}), NEW)
    assert verdict.details[0].startswith("z: fails since ")


def test_jobs_that_find_the_disk_full_are_critical_from_the_first_failure_on(status) -> None:
    failing = {"failures": 1, "full": True, "error": "no space is left on the disk", "failing_since": SINCE}
    low = DiskStatus(place="/srv/backy", size=2**40, free=2**30, growth=2**31, low_since=SINCE)
    verdict = judge(status({"vm1": failing, "vm2": failing, "vm3": {}}, disk=low), NEW)

    assert (verdict.state, verdict.summary) == (State.CRITICAL, "2 jobs not backed up, as the disk is full")
    assert verdict.details[0] == (
        "/srv/backy: 1.0 GiB left on the disk of 1.0 TiB, of which 2.0 GiB more are used than a week ago"
    )
    assert verdict.details[1].startswith("vm1: fails since ")
    assert verdict.performance.endswith(f" free={2**30}B")


def test_a_disk_that_will_be_full_in_a_week_is_a_warning(status) -> None:
    disk = DiskStatus(place="/srv/backy", size=2**40, free=2**30, growth=2**31, low_since=SINCE)
    assert judge(status({"vm1": {}}, disk=disk), NEW).state is State.WARNING
    assert judge(status({"vm1": {}}, disk=msgspec.structs.replace(disk, low_since=None)), NEW).state is State.OK


def test_a_repository_below_nine_tenths_of_its_size_is_no_warning(status) -> None:
    for keys in ({"occupied": 89, "max_size": 100}, {"occupied": 10**12}, {"max_size": 100}):
        assert judge(status({"vm1": keys}), NEW).state is State.OK


def test_what_waits_for_others_is_no_news_for_a_week(status) -> None:
    found = status({"vm1": {"put_off_since": SINCE, "late_from": NEVER}}, written=SINCE + PUT_OFF)
    assert judge(found, timedelta()).state is State.OK
    (line,) = judge(found, timedelta(seconds=1)).details
    assert line.startswith("vm1: nothing is expired or purged since ")


@given(st.integers(-10 * 86400, 10 * 86400), st.integers(-200, 200))
def test_the_verdict_is_that_of_the_time_of_asking(status, deadline: int, age: int) -> None:
    """Whatever the file says of being late, which is as old as the file."""
    late_from = status({}).written + timedelta(seconds=deadline)
    found = status({"vm1": {"late_from": late_from}})
    verdict = judge(found, timedelta(seconds=age))
    late = max(age - deadline, 0)
    assert verdict.state is (State.CRITICAL if late else State.OK)
    assert f" most_overdue={late}s " in verdict.performance


@pytest.mark.parametrize("silence", [None, "no scheduler answers at /srv/backy/.socket: why; does one run?"])
@pytest.mark.parametrize(
    ("age", "how"),
    [
        (timedelta(minutes=5, seconds=1), "0:05:01 old"),
        (timedelta(days=3), "3 days, 0:00:00 old"),
        (timedelta(minutes=-6), "0:06:00 ahead of the clock"),
    ],
)
def test_a_status_that_is_old_is_critical_whatever_it_says(
    status, age: timedelta, how: str, silence: str | None
) -> None:
    assert judge(status({"vm1": {}}), timedelta(minutes=5)).state == 0
    verdict = judge(status({"vm1": {}}), age, silence)
    why = silence or "no scheduler has written it since"
    assert (verdict.state, verdict.summary) == (2, f"Status file {FILE} is {how}, and {why}")


def test_a_scheduler_that_does_not_answer_is_a_warning_before_its_file_is_old(status) -> None:
    verdict = judge(status({"vm1": {}}), NEW, "no scheduler answers")
    assert (verdict.state, verdict.details) == (State.WARNING, ("no scheduler answers",))


def test_nobody_reads_ten_thousand_lines(status) -> None:
    verdict = judge(status({f"vm{number}": {"sla_overdue": 1.0} for number in range(200)}), NEW)
    assert len(verdict.details) == MOST_LINES + 1
    assert verdict.details[-1] == "... and 150 more; 'backy jobs --json' shows all"


def test_the_command_ends_with_the_state(status, tmp_path: Path, backy, answering) -> None:
    configuration = tmp_path / "backy.conf"
    none = backy("check", "-c", configuration)
    assert (none.code, none.out) == (
        3,
        f"UNKNOWN: {configuration}: can not be read: No such file or directory\n",
    )
    configuration.write_text(f"global: {{base-dir: {tmp_path}}}")
    file = tmp_path / "status"
    none = backy("check", "-c", configuration)
    assert (none.code, none.out) == (3, f"UNKNOWN: no status file found at {file}; 'backy scheduler' writes it\n")
    file.write_text("nonsense")
    assert backy("check", "-c", configuration).code == 3

    write(file, msgspec.json.encode(status({"vm1": {"late_from": NEVER}})))
    dead = backy("check", "-c", configuration)
    assert (dead.code, dead.err) == (1, "")
    assert dead.out.endswith(
        f"\nno scheduler answers at {tmp_path}/.socket: No such file or directory; does one run?\n"
    )
    answering(tmp_path)
    for job, state in (
        ({"late_from": NEVER}, State.OK),
        ({"late_from": NEVER, "distrusted": 1}, State.WARNING),
        ({"sla_overdue": 0.0}, State.CRITICAL),
    ):
        write(file, msgspec.json.encode(status({"vm1": job})))
        result = backy("check", "-c", configuration)
        assert (result.code, result.out.partition(":")[0], result.err) == (state, state.name, "")
    os.utime(file, (0, 0))
    stale = backy("check", "-c", configuration).out
    assert re.match(
        rf"CRITICAL: Status file {file} is \d+ days, [0-9:]+ old, and no scheduler has written it since \|", stale
    )


def test_who_may_not_ask_is_told_what_the_file_tells(status, tmp_path: Path, backy, answering, as_nobody) -> None:
    configuration = tmp_path / "backy.conf"
    configuration.write_text(f"global: {{base-dir: {tmp_path}}}")
    write(tmp_path / "status", msgspec.json.encode(status({"vm1": {"late_from": NEVER}})))
    answering(tmp_path)
    (tmp_path / ".socket").chmod(0o600)
    with as_nobody():
        assert backy("check", "-c", configuration).out.startswith("OK: 1 job within SLA |")


def test_a_scheduler_that_hangs_is_told_of(status, tmp_path: Path, backy, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "backy.conf"
    configuration.write_text(f"global: {{base-dir: {tmp_path}}}")
    write(tmp_path / "status", msgspec.json.encode(status({"vm1": {"late_from": NEVER}})))
    monkeypatch.setattr("backy.scheduler.monitoring.check.PATIENCE", timedelta(seconds=0.1))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / ".socket"))
        listening.listen()
        said = backy("check", "-c", configuration)
    assert (said.code, said.out.splitlines()[1:]) == (
        1,
        [f"the scheduler takes too long to answer at {tmp_path}/.socket"],
    )


def test_a_run_longer_than_its_interval_is_a_warning(status) -> None:
    since = status({}).written - timedelta(hours=24)
    assert judge(status({"vm1": {"running_since": since}}), timedelta()).state == State.OK

    verdict = judge(status({"vm1": {"running_since": since}}), timedelta(seconds=1))

    assert verdict.state == State.WARNING
    assert re.fullmatch(r"vm1: its run of .* takes longer than its interval of 1d", verdict.details[0])


def test_a_repository_that_somebody_changed_is_critical(status) -> None:
    changed = {"tampering": ("revision x is gone", "line 3 is damaged")}
    verdict = judge(status({"vm1": changed, "vm2": {"sla_overdue": 1.0}, "vm3": {}}), NEW)
    assert (verdict.state, verdict.summary) == (
        State.CRITICAL,
        "1 job changed by somebody else than backy, 1 job not within SLA",
    )
    assert verdict.details[0] == "vm1: revision x is gone and 1 more finding"
    assert verdict.details[1].startswith("vm2 (last time")


CHANGED, LATE = "1 job changed by somebody else than backy", "1 job not within SLA"
FULL = "1 job not backed up, as the disk is full"


@pytest.mark.parametrize(("changed", "late", "full", "wrong"), [*itertools.product([False, True], repeat=4)])
def test_every_kind_of_trouble_is_told_with_the_warnings_and_all_heads(
    status, *, changed: bool, late: bool, full: bool, wrong: bool
) -> None:
    jobs = {
        "vm1": {"head": Head("id-1", 7, "ab"), "tampering": ("line 3 is damaged",) if changed else ()},
        "vm2": {"head": Head("id-2", 9, "cd"), "sla_overdue": 1.0 if late else 0.0},
        "vm3": {"full": full, "wrong": int(wrong)},
    }
    verdict = judge(status(jobs), NEW)
    warnings = ["vm3: 1 revision is wrong: the source hid a change, 'backy status' names them"] * wrong
    critical = [text for text, found in ((CHANGED, changed), (LATE, late), (FULL, full)) if found]
    fine = "3 jobs within SLA, 1 warning" if wrong else "3 jobs within SLA"
    assert verdict.summary == (", ".join(critical) or fine)
    assert verdict.state == (State.CRITICAL if critical else State.WARNING if wrong else State.OK)
    details = [*verdict.details]
    assert details[-2:] == ["vm1: journal id-1 7 ab", "vm2: journal id-2 9 cd"]
    assert details[len(details) - 2 - len(warnings) : -2] == warnings
    assert len(details) == 2 + changed + late + wrong


def test_the_heads_of_all_journals_are_in_the_output(status) -> None:
    verdict = judge(status({"vm1": {"head": Head("id-of-vm1", 7, "ab" * 32)}, "vm2": {}}), NEW)
    assert verdict.state is State.OK
    assert verdict.details == (f"vm1: journal id-of-vm1 7 {'ab' * 32}",)
