"""A repository in the care of the scheduler, and its configuration."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from backy.config import Duration
from backy.repository.config import ScheduledTag
from backy.repository.repository import Repository
from backy.retention.rules import Mark, write_mark


@pytest.fixture
def scheduled(repository: Repository, old_revisions) -> Repository:
    """A repository that keeps two dailies and two weeklies, has had more of them, and lives in the present."""
    schedule = {"daily": ScheduledTag(Duration(days=1), 2), "weekly": ScheduledTag(Duration(days=7), 2)}
    repository.configure(msgspec.structs.replace(repository.config, schedule=schedule))
    ages = {30: "daily", 20: "manual:x", 12: "former", 10: "daily weekly", 1: "daily", 0.5: "daily", 0: "daily weekly"}
    old_revisions(repository, ages, datetime.now(UTC))
    write_mark(repository.directory, Mark(seq=0))
    return repository


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    (tmp_path / "backy.conf").write_text(f"global: {{base-dir: {tmp_path}}}\njobs: not read here\n")
    return tmp_path / "backy.conf"
