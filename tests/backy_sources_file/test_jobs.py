"""Whole jobs on a real file system, by the commands that operators type."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.repository.repository import Repository
from backy_sources_file import fiemap


@pytest.fixture
def image(mount: Callable[..., Path]) -> Path:
    path = mount("xfs", 300 * 2**20) / "disk.img"
    path.write_bytes(random.Random(1).randbytes(3 * CHUNK_SIZE))
    return path


@pytest.fixture
def job(backy, image: Path, tmp_path: Path) -> Callable:
    """Run a command on a repository that keeps clones of the image."""
    directory = tmp_path / "vm"
    assert backy("-b", directory, "init", "file", image).code == 0
    set_freeze(directory, "keep")
    return lambda *arguments: backy("-b", directory, *arguments)


def set_freeze(directory: Path, freeze: str) -> None:
    config = directory / "config"
    config.chmod(0o600)
    lines = [line for line in config.read_text().splitlines() if "freeze:" not in line]
    config.write_text("\n".join(lines).replace("  type: file", f"  type: file\n  freeze: {freeze}"))


def clones(image: Path) -> list[str]:
    return [path.name.partition("@")[2] for path in image.parent.glob(".backy-*")]


def change(image: Path, data: bytes) -> None:
    with image.open("r+b") as stream:
        stream.write(data)


def test_a_clone_goes_with_the_revision_that_it_was_kept_for(job, image, tmp_path) -> None:
    for tag in ("one", "two"):
        assert job("backup", tag).code == 0
    one, two = Repository.open(tmp_path / "vm").records.history()
    assert clones(image) == [two.id]
    assert job("forget", "-r", "one").err == ""
    assert clones(image) == [two.id]
    assert job("forget", "-r", "two", "--force", "--reason", "a test").err == ""
    assert clones(image) == []
    done = job("backup", "three")
    assert (done.code, done.err) == (0, "")
    assert one.id not in clones(image)


def test_after_the_newest_revision_is_forgotten_all_is_read_and_that_is_said(job, image, tmp_path) -> None:
    for tag in ("one", "two"):
        assert job("backup", tag).code == 0
    job("forget", "-r", "two")
    change(image, b"changed")
    done = job("backup", "three")
    (one, three) = Repository.open(tmp_path / "vm").records.history()
    assert done.err == f"WARNING: source {image} is read from end to end: the clone of revision {one.id} is missing\n"
    assert done.out == f"{three.id} verified\n"


def test_release_leaves_nothing_beside_the_image(job, image) -> None:
    job("backup", "one")
    assert job("release").out == "Released\n"
    assert list(image.parent.iterdir()) == [image]


@pytest.mark.parametrize("freeze", ["off", "during-backup"])
def test_clones_go_when_they_are_not_wanted_any_more(job, image, tmp_path, freeze) -> None:
    job("backup", "one")
    set_freeze(tmp_path / "vm", freeze)
    assert job("backup", "two").code == 0
    assert list(image.parent.iterdir()) == [image]


def test_what_is_distrusted_is_not_compared_with(job, image, tmp_path) -> None:
    job("backup", "one")
    job("distrust", "-r", "one")
    assert job("backup", "two").code == 0
    one, two = Repository.open(tmp_path / "vm").records.history()
    assert two.statistics.bytes_read == image.stat().st_size
    assert clones(image) == [two.id]
    assert one.id != two.id


def test_coverage_is_recorded_and_shown(job) -> None:
    job("backup", "one")
    assert "verified 1 of 3 chunks" in job("backup", "two").out
    newest = json.loads(job("status", "--json").out)["revisions"][-1]
    assert newest["verification"]["verifier"] == "changed"
    assert (newest["verification"]["checked"], newest["verification"]["total"]) == (1, 3)


def test_a_file_system_that_tells_too_little_is_found_out(job, image, tmp_path, monkeypatch) -> None:
    job("backup", "one")
    with image.open("r+b") as stream:
        stream.seek(2 * CHUNK_SIZE)
        stream.write(b"not told of")
    monkeypatch.setattr(fiemap, "changes", lambda _old, _new: [])
    # it is found out when its turn comes, and the clones of both are equal from then on
    outputs = [job("backup", tag).err for tag in ("two", "three", "four")]
    assert [output != "" for output in outputs].count(True) == 1
    assert "now all of it is read" in "".join(outputs)
    assert json.loads(job("reports", "list", "--json").out)["reports"][0]["index"] == 2
    repository = Repository.open(tmp_path / "vm")
    with repository.image(repository.records.history()[-1]) as stored:
        assert stored.pread(0, stored.size) == image.read_bytes()
    assert job("backup", "five").err == ""
