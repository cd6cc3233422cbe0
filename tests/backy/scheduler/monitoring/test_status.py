from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import yaml

from backy.errors import BackyError
from backy.scheduler.monitoring.status import Status, age_allowed, left_before, read, write


def test_a_status_is_read_as_it_was_written_by_json_and_by_yaml(status, tmp_path: Path) -> None:
    found: Status = status({"vm1": {"last_tags": ("daily", "manual:x")}, "vm2": {"error": "why"}})
    write(tmp_path / "status", msgspec.json.encode(found))
    assert read(tmp_path / "status") == found
    plain = yaml.safe_load((tmp_path / "status").read_text())
    assert [job["last_tags"] for job in plain["jobs"]] == [["daily", "manual:x"], ["daily"]]


def test_monitoring_may_read_it(status, tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        write(tmp_path / "status", b"{}")
    finally:
        os.umask(previous)
    assert (tmp_path / "status").stat().st_mode & 0o777 == 0o644


def test_a_file_that_can_not_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "status", b"old")
    with pytest.raises(TypeError):
        write(tmp_path / "status", "text")  # type: ignore[arg-type]  # as a full disk would do
    assert [path.name for path in tmp_path.iterdir()] == ["status"]
    assert (tmp_path / "status").read_bytes() == b"old"


@pytest.mark.parametrize("content", [b"", b"{}", b"- job: vm1\n", b"\xff", b'{"version": 3}'])
def test_another_file_is_no_status(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "status").write_bytes(content)
    with pytest.raises(BackyError, match="is no status file of this version"):
        read(tmp_path / "status")
    assert left_before(tmp_path / "status") is None


def test_what_an_earlier_scheduler_left_is_known(status, tmp_path: Path) -> None:
    found: Status = status({"vm1": {}, "vm2": {}})
    write(tmp_path / "status", msgspec.json.encode(found))
    assert left_before(tmp_path / "status") == found
    assert left_before(tmp_path / "nothing") is None


def test_a_status_may_be_three_intervals_old_and_five_minutes_in_any_case() -> None:
    assert age_allowed(30) == timedelta(minutes=5)
    assert age_allowed(600) == timedelta(minutes=30)
