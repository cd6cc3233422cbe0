"""The commands beside the scheduler; the scheduler itself is tested as a process of its own."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import msgspec
import pytest

from backy.cli.logs import by_a_thread, is_verbose, set_up_logging


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    (tmp_path / "backy.conf").write_text(f"global: {{base-dir: {tmp_path}}}\njobs: this is no matter here\n")
    return tmp_path / "backy.conf"


def test_jobs_without_a_status_file_are_an_error(backy, configuration: Path) -> None:
    result = backy("jobs", "-c", configuration)
    assert result.code == 1
    assert result.err == f"Error: there is no status file {configuration.parent}/status; 'backy scheduler' writes it\n"


def test_jobs_with_a_pattern_that_is_none_are_an_error(backy, configuration: Path, status_file: Path) -> None:
    assert backy("jobs", "-c", configuration, "(").err == "Error: '(' is no regular expression: missing ): (\n"


def test_jobs_are_listed_and_chosen(backy, configuration: Path, status_file: Path) -> None:
    assert backy("jobs", "-c", configuration).out.endswith("2 jobs shown\n")
    listed = json.loads(backy("jobs", "-c", configuration, "--json", "^d").out)
    assert [job["job"] for job in listed] == ["db1"]


@pytest.fixture
def status_file(configuration: Path) -> Path:
    path = configuration.parent / "status"
    job = {
        "sla": "OK", "sla_overdue": 0.0, "status": "failed", "since": "2026-01-01T00:00:00Z", "revisions": 0,
        "last_time": None, "last_tags": [], "last_duration": None, "next_time": None, "next_tags": [], "failures": 1,
        "error": "why", "manual_tags": [], "quarantine_reports": 0, "distrusted": 0, "unreadable": 0,
        "verification": None, "partly_verified": False, "consistent": True,
    }  # fmt: skip
    general = {
        "version": "3", "pid": 1, "started": job["since"], "written": job["since"], "interval": 30, "configuration": "",
        "loaded": job["since"], "configuration_error": None, "console": [], "problems": [], "plugins": [], "pools": {},
    }  # fmt: skip
    path.write_bytes(msgspec.json.encode({**general, "jobs": [{**job, "job": name} for name in ("db1", "web1")]}))
    return path


def test_the_client_says_that_nobody_answers(backy, configuration: Path) -> None:
    result = backy("client", "-c", configuration, "status")
    assert result.code == 1
    assert result.err.startswith(f"Error: no scheduler answers at {configuration.parent}/.socket: No such file")


def test_the_client_needs_a_command(backy, configuration: Path) -> None:
    assert backy("client", "-c", configuration).code == 2


def test_lines_are_written_by_a_thread_and_all_of_them(tmp_path: Path) -> None:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        set_up_logging(tmp_path / "log", verbose=False)
        with by_a_thread():
            for number in range(1000):
                logging.getLogger("backy.test").info("line %d", number)
            assert not is_verbose()
        assert (tmp_path / "log").read_text().count("INFO line") == 1000
        set_up_logging(None, verbose=True)
        with by_a_thread():
            assert is_verbose()
    finally:
        for handler in [one for one in root.handlers if one not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
