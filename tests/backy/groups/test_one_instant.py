"""Two disks under a writer that counts on both: with a moment, both have the same count in every backup."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from backy.api import Snapshot
from backy.groups.acts import backup, restore
from backy.groups.group import Group, require
from backy.system.safeyaml import dump_yaml
from backy_sources_file import FileSource

WRITER = """
import os, sys, time
disks = [os.open(name, os.O_RDWR) for name in ("root.img", "data.img")]
count = 0
print("writes", flush=True)
while True:
    if os.path.exists("rest"):
        open("rests", "w").close()
        time.sleep(0.001)
        continue
    if os.path.exists("rests"):
        os.unlink("rests")
    count += 1
    for disk in disks:
        os.pwrite(disk, b"%020d" % count, 1 << 20)
"""
BEFORE = "sh -c 'cd {0}; touch rest; until test -e rests; do sleep 0.01; done'"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Count on both disks all the time."""
    with subprocess.Popen([sys.executable, "-c", WRITER], cwd=folder, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout
            assert writer.stdout.readline() == b"writes\n"
            yield
        finally:
            writer.kill()


@pytest.fixture
def machine(mount: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Group]:
    """A machine with two disks on a file system that can freeze them by clones. Some time passes before each one."""
    folder, snapshot = mount("xfs", 400 * 2**20), FileSource.snapshot

    def late(source: FileSource, revision_id: str, parent: str | None) -> AbstractContextManager[Snapshot]:
        time.sleep(0.05)
        return snapshot(source, revision_id, parent)

    monkeypatch.setattr(FileSource, "snapshot", late)

    def make(**keys: Any) -> Group:
        for name in ("root", "data"):
            (folder / f"{name}.img").write_bytes(bytes(8 * 2**20))
        disks = {name: {"source": {"type": "file", "filename": f"{folder}/{name}.img"}} for name in ("root", "data")}
        (folder / "web1").mkdir()
        moment = {key: str(value).format(folder) for key, value in keys.items()}
        (folder / "web1/config").write_bytes(
            dump_yaml({"format": 3, "disks": disks, **({"moment": moment} if moment else {})})
        )
        return require(folder / "web1")

    return make


def counts(group: Group, target: Path) -> set[bytes]:
    """Back up and restore; return what is found on the disks."""
    restore(group, backup(group, ("daily",)).id, target)
    return {(target / f"{name}.img").read_bytes()[1 << 20 :][:20] for name in ("root", "data")}


def test_with_a_moment_all_disks_are_of_one_instant(
    machine: Callable[..., Group], rounds: Callable[[int, int], int], tmp_path: Path
) -> None:
    group = machine(type="program", before=BEFORE, after="rm -f {0}/rest", limit="60s")
    with writing(group.directory.parent):
        found = [counts(group, tmp_path / str(number)) for number in range(rounds(5, 50))]

    assert [len(one) for one in found] == [1] * len(found)
    # the writer has written meanwhile
    assert len(set.union(*found)) == len(found)


def test_without_a_moment_they_are_not(
    machine: Callable[..., Group], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    group = machine()
    with writing(group.directory.parent):
        found = [counts(group, tmp_path / str(number)) for number in range(5)]

    assert max(len(one) for one in found) == 2
    assert "its disks may be of different instants" in caplog.text
