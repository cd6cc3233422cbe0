from __future__ import annotations

import re
from pathlib import Path

from backy.repository.repository import Repository


def test_a_logfile_has_times_and_takes_what_happened(backy, repository: Repository, tmp_path: Path) -> None:
    log = tmp_path / "backy.log"
    done = backy("-l", log, "-b", repository.directory, "backup", "daily")

    assert (done.code, done.err) == (0, "")
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d .*INFO", line) for line in lines)
    assert lines[-1].endswith("done")


def test_an_error_is_told_and_logged(backy, repository: Repository, image: Path, tmp_path: Path) -> None:
    log = tmp_path / "backy.log"
    image.unlink()
    done = backy("-l", log, "-b", repository.directory, "backup", "daily")

    assert done.code == 1
    assert done.err == f"Error: source {image}: No such file or directory\n"
    assert f"ERROR source {image}: No such file or directory" in log.read_text()


def test_verbose_says_more_on_standard_error(backy, repository: Repository) -> None:
    assert "done" in backy("-v", "-b", repository.directory, "backup", "daily").err
