"""Repositories that belong to no job are found, whatever they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.repository.repository import Repository


@pytest.fixture
def conf(tmp_path: Path, repository: Repository) -> Path:
    """A configuration with the job `vm`, and a repository of it with one revision."""
    Backup(repository, ("daily",)).run()
    (tmp_path / "base").mkdir()
    shutil.move(repository.directory, tmp_path / "base/vm")
    path = tmp_path / "backy.conf"
    path.write_text(
        f"global: {{base-dir: {tmp_path}/base}}\nschedules: {{default: {{daily: {{interval: 1d, keep: 7}}}}}}\n"
        "jobs:\n  vm: {source: {type: file, filename: /x.img}, schedule: default, copies: {drawer: {to: /mnt/}}}\n"
    )
    return path


def test_there_is_none(conf: Path, backy, tmp_path: Path) -> None:
    (tmp_path / "base/lost+found").mkdir()
    (tmp_path / "base/status").write_text("{}")
    assert backy("orphans", "-c", conf).out.splitlines()[-1] == "0 repositories without a job"


def test_each_is_listed_with_what_it_is(conf: Path, backy, tmp_path: Path) -> None:
    base = tmp_path / "base"
    for name in ("gone", "copy", "broken", "older", "\x1b[31mred"):
        shutil.copytree(base / "vm", base / name)
    config = (base / "vm/config").read_text()
    (base / "copy/config").chmod(0o600)
    (base / "copy/config").write_text(config.partition("source:")[0])
    (base / "broken/config").unlink()
    (base / "broken/config").write_text("format: [")
    (base / "older/config").unlink()
    (base / "older/config").write_text("type: file\n")
    (base / "link").symlink_to(base / "vm")
    done = backy("orphans", "-c", conf)

    assert done.code == 0
    rows = {line.split()[0]: line for line in done.out.splitlines()[2:-1]}
    assert rows.keys() == {"gone", "copy", "broken", "older", "\\x1b[31mred"}
    assert rows["gone"].endswith("its job is gone")
    assert rows["gone"].split()[1] == "1"
    assert rows["copy"].endswith("copy")
    assert done.out.endswith("5 repositories without a job\n")
    listed = json.loads(backy("orphans", "-c", conf, "--json").out)["orphans"]
    (gone,) = [one for one in listed if one["name"] == "gone"]
    assert gone["revisions"] == 1
    assert gone["occupied"] > 0
    assert not gone["copy"]
