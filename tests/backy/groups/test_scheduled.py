"""What the scheduler makes of a machine with several disks, and what it remembers of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from backy.answers.audit import read_witness
from backy.errors import RepositoryError
from backy.groups.acts import backup
from backy.groups.group import Group, require
from backy.scheduler.configuration.configuration import Configuration, load
from backy.scheduler.jobs.ledger import Job
from backy.scheduler.jobs.repositories import configure, pending, summarize
from backy.scheduler.monitoring.status import Remembered

NOW = datetime(2200, 1, 1, tzinfo=UTC)


def known_again(found: Remembered) -> Job:
    """Return the job as a scheduler has it that was started again, from the status file alone."""
    content = {key: getattr(found, key) for key in Remembered.__struct_fields__ if hasattr(found, key)}
    known = msgspec.json.decode(msgspec.json.encode(content), type=Remembered)
    return Job(settings=None, entry=None, known=known)  # type: ignore[arg-type]  # no more is asked of it


def test_the_journal_of_each_disk_is_remembered(machine: Callable[..., Group], tmp_path: Path) -> None:
    group = machine("root", "data")
    backup(group, ("daily",))
    shutil.copytree(group.directory / "data", tmp_path / "old", symlinks=True)
    backup(group, ("daily",))
    before = summarize(group.directory, NOW, NOW)
    assert [*before.heads] == ["web1/root", "web1/data"]
    assert before.tampering == ()

    # an old state of one disk with its own journal contradicts nothing but what was seen
    shutil.rmtree(group.directory / "data")
    (tmp_path / "old").rename(group.directory / "data")
    assert summarize(group.directory, NOW, NOW).tampering == ()
    for earlier in (before.audited, known_again(before).audited):
        after = summarize(group.directory, NOW, NOW, earlier=earlier)
        assert [problem.partition(":")[0] for problem in after.tampering] == ["data"]
        assert after.heads == before.heads


def test_what_is_remembered_is_a_witness(machine: Callable[..., Group], tmp_path: Path) -> None:
    group = machine("root", "data")
    backup(group, ("daily",))
    found = summarize(group.directory, NOW, NOW)
    (tmp_path / "status").write_bytes(msgspec.json.encode({"jobs": [{"disks": found.disks}]}))

    assert read_witness(tmp_path / "status") == [*found.heads.values()]


def test_the_newest_is_told_with_the_sum_of_all_disks(machine: Callable[..., Group], tmp_path: Path) -> None:
    group = machine("root", "data")
    made = backup(group, ("daily",))
    found = summarize(group.directory, NOW, NOW)

    assert (found.newest, found.revisions, found.consistency) == (made.id, 1, "crash")
    assert found.image == sum((tmp_path / f"{name}.img").stat().st_size for name in ("root", "data"))
    assert found.verification == "verified"


@pytest.fixture
def jobs(tmp_path: Path) -> Callable[[str], Configuration]:
    """Load a configuration with the job `web1`, as `jobs("source: ...")`."""
    (tmp_path / "base").mkdir()
    for name in ("root", "data"):
        (tmp_path / f"{name}.img").write_bytes(b"content")

    def write(images: str) -> Configuration:
        (tmp_path / "backy.conf").write_text(
            f"global: {{base-dir: {tmp_path}/base}}\nschedules: {{default: {{daily: {{interval: 1d, keep: 7}}}}}}\n"
            f"jobs: {{web1: {{schedule: default, {images}}}}}\n"
        )
        return load(tmp_path / "backy.conf")

    return write


def test_a_machine_is_made_once_and_late_since_then(jobs: Callable, tmp_path: Path) -> None:
    disks = ", ".join(
        f"{name}: {{source: {{type: file, filename: {tmp_path}/{name}.img}}}}" for name in ("root", "data")
    )
    job = jobs(f"disks: {{{disks}}}").jobs["web1"]
    content, directory = pending(job), job.directory
    assert content
    configure(directory, content)
    made = require(directory).config

    assert made.id
    assert made.created
    assert datetime.now(UTC) - made.created < timedelta(minutes=10)
    # a scheduler that is started again every day must not find a job in time that never had a backup
    assert summarize(directory, NOW, NOW).past.since == made.created
    assert pending(jobs(f"disks: {{{disks}}}").jobs["web1"]) is None
    changed = pending(jobs(f"expire: false, disks: {{{disks}}}").jobs["web1"])
    assert changed
    configure(directory, changed)
    assert (require(directory).config.id, require(directory).config.created) == (made.id, made.created)
    backup(require(directory), ("daily",))


@pytest.mark.parametrize("order", [("one", "several"), ("several", "one")])
def test_a_job_of_one_image_and_a_machine_do_not_become_each_other(
    jobs: Callable, tmp_path: Path, order: tuple[str, str], backy
) -> None:
    source = f"source: {{type: file, filename: {tmp_path}/root.img}}"
    images = {"one": source, "several": f"disks: {{root: {{{source}}}}}"}
    job = jobs(images[order[0]]).jobs["web1"]
    content, directory = pending(job), job.directory
    assert content
    configure(directory, content)
    assert backy("-b", directory, "backup", "daily").code == 0
    before = (directory / "config").read_bytes()

    def change() -> None:
        content = pending(jobs(images[order[1]]).jobs["web1"])
        configure(directory, content or b"")

    with pytest.raises(RepositoryError, match="choose another name for a job with"):
        change()
    assert (directory / "config").read_bytes() == before
