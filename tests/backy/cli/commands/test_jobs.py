from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import msgspec
import pytest


def test_jobs_without_a_status_file_are_an_error(backy, configuration: Path) -> None:
    result = backy("jobs", "-c", configuration)
    assert result.code == 1
    assert result.err == f"Error: no status file found at {configuration.parent}/status; 'backy scheduler' writes it\n"


def test_jobs_with_a_pattern_that_is_none_are_an_error(backy, configuration: Path, status_file: Path) -> None:
    assert backy("jobs", "-c", configuration, "(").err == "Error: '(' is no regular expression: missing ): (\n"


def test_a_list_that_nobody_keeps_up_to_date_says_first_how_old_it_is(
    backy, configuration: Path, status_file: Path
) -> None:
    """And the jobs are judged as of now: nobody has backed them up since."""
    os.utime(status_file, (time.time() - 290,) * 2)  # too new for `backy check` to be critical
    said = backy("jobs", "-c", configuration)
    first, *others = said.out.splitlines()
    doubt = rf"as of .*, 0:04:5\d ago: no scheduler answers at {configuration.parent}/\.socket: .*; does one run\?"
    assert re.fullmatch(doubt, first)
    assert sum("late, failed" in line for line in others) == 2

    said = backy("jobs", "-c", configuration, "--json")
    assert re.fullmatch(f"WARNING: {doubt}\n", said.err)
    assert [job["sla"] for job in json.loads(said.out)["jobs"]] == ["TOO OLD", "TOO OLD"]


def test_jobs_are_listed_and_chosen(backy, configuration: Path, status_file: Path) -> None:
    assert backy("jobs", "-c", configuration).out.endswith("2 jobs\n")
    listed = json.loads(backy("jobs", "-c", configuration, "--json", "^d").out)["jobs"]
    assert [job["job"] for job in listed] == ["db1"]


def test_jobs_that_fail_are_listed_with_the_reason(backy, configuration: Path, status_file: Path) -> None:
    """Also one of which only the expiry fails, and none that was ended or held up."""
    status = json.loads(status_file.read_bytes())
    for number, job in enumerate(status["jobs"]):
        job |= {"failing_since": None if number else job["since"], "failures": 0}
    status_file.write_bytes(msgspec.json.encode(status))
    said = backy("jobs", "-c", configuration, "--failed")
    assert re.search(r"^db1 .* why$", said.out, re.MULTILINE)
    assert said.out.endswith("\n1 job\n")
    for words, names in ((["--failed"], ["db1"]), (["--failed", "web"], []), (["web"], ["web1"])):
        listed = json.loads(backy("jobs", "-c", configuration, "--json", *words).out)["jobs"]
        assert [(job["job"], job["error"]) for job in listed] == [(name, "why") for name in names]


@pytest.fixture
def status_file(configuration: Path) -> Path:
    path = configuration.parent / "status"
    job = {
        "sla": "OK", "sla_overdue": 0.0, "status": "failed", "since": "2026-01-01T00:00:00Z", "revisions": 0,
        "last_time": None, "last_tags": [], "last_duration": None, "next_time": None, "next_tags": [], "failures": 1,
        "error": "why", "manual_tags": [], "quarantine_reports": 0, "distrusted": 0, "unreadable": 0,
        "verification": None, "partly_verified": False, "consistency": None, "unfrozen": False,
        "unfinished": False, "running_since": None, "interval": 86400.0, "late_from": "2026-01-02T12:00:00Z",
    }  # fmt: skip
    general = {
        "version": "3", "pid": 1, "started": job["since"], "written": job["since"], "interval": 30, "configuration": "",
        "loaded": job["since"], "configuration_error": None, "console": [], "problems": [], "plugins": [], "pools": {},
    }  # fmt: skip
    path.write_bytes(msgspec.json.encode({**general, "jobs": [{**job, "job": name} for name in ("db1", "web1")]}))
    return path
