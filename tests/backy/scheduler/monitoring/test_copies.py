"""What counts as a copy, and how `check` counts it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from backy.scheduler.monitoring.status import Status, copies
from tests.judging import judge


def test_repositories_without_a_source_are_copies(tmp_path: Path) -> None:
    Repository.initialize(tmp_path / "copy", JobConfig(format=FORMAT))
    Repository.initialize(tmp_path / "job", JobConfig(format=FORMAT))
    source = SourceSection({"type": "file", "filename": "/dev/null"})
    Repository.initialize(tmp_path / "other", JobConfig(format=FORMAT, source=source))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config").write_text("format: 999")
    (tmp_path / "link").symlink_to("copy")
    assert copies(tmp_path, {"job"}) == ("copy",)


def test_check_counts_them(status: Callable[..., Status]) -> None:
    verdict = judge(status({}, copies=("one", "two")), timedelta())
    assert verdict.summary == "0 jobs within SLA and 2 repositories without a job"
    assert verdict.performance.endswith(" copies=2")
    assert "copies" not in str(judge(status({}), timedelta()))
