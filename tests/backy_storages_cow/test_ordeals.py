"""Raw images on real file systems that fill up, under processes that are killed, and copied by plain tools."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE
from backy.durable import sync_file_system_of
from backy.errors import ExitCode
from backy.repository.repository import Repository

KINDS = ["btrfs", "xfs"]


@dataclass
class Guest:
    """Whose disk is backed up."""

    image: Path
    backy: Callable

    def scribble(self, seed: int) -> bytes:
        """Change pages here and there, and a chunk as a whole; return what the image is then."""
        chance = random.Random(seed)
        with self.image.open("r+b") as stream:
            for page in chance.sample(range(4 * CHUNK_SIZE // PAGE_SIZE), 200):
                os.pwrite(stream.fileno(), chance.randbytes(PAGE_SIZE), page * PAGE_SIZE)
            os.pwrite(stream.fileno(), bytes(CHUNK_SIZE) if seed % 2 else chance.randbytes(CHUNK_SIZE), CHUNK_SIZE)
        return self.image.read_bytes()

    def history(self, directory: Path) -> dict[str, bytes]:
        """Make a repository of three revisions and return what they are, by their ids."""
        assert self.backy("-b", directory, "init", "file", self.image, "--storage", "cow").code == 0
        expected = {}
        for seed in range(3):
            content = self.scribble(seed)
            expected[self.backy("-b", directory, "backup", "daily").out.split()[0]] = content
        return expected


@pytest.fixture
def guest(tmp_path: Path, backy: Callable) -> Guest:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(0).randbytes(4 * CHUNK_SIZE + 1000))
    return Guest(path, backy)


def check(directory: Path, expected: dict[str, bytes]) -> None:
    assert {revision.id for revision in Repository.open(directory).records.history()} == expected.keys()
    for identity, content in expected.items():
        assert (directory / identity).read_bytes() == content, identity


# copies ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "target"),
    [
        (["cp", "-a"], "ext4"),
        (["cp", "-a"], "xfs"),
        (["rsync", "-aS"], "ext4"),
        (["rsync", "-aS"], "btrfs"),
        (["mv"], "ext4"),
        (["mv"], "xfs"),
    ],
)
def test_a_copy_on_another_file_system_has_every_revision(mount, guest: Guest, command: list[str], target: str) -> None:
    original = mount("xfs" if target == "btrfs" else "btrfs") / "vm"
    expected = guest.history(original)
    copy = mount(target) / "vm"
    subprocess.run([*command, original, copy.parent], check=True)

    check(copy, expected)
    assert guest.backy("-b", copy, "scrub", "deep").code == 0
    for identity, content in expected.items():
        restored = guest.image.with_name("restored")
        assert guest.backy("-b", copy, "restore", "--force", "-r", identity, restored).code == 0
        assert restored.read_bytes() == content
    assert (copy / "last").read_bytes() == content
    taken = sum(path.stat().st_blocks * 512 for path in copy.iterdir() if path.name in expected)
    assert taken < sum(len(content) for content in expected.values())  # holes are holes
    content = guest.scribble(9)
    done = guest.backy("-b", copy, "backup", "daily")
    assert done.code == (1 if target == "ext4" else 0)
    if target != "ext4":
        check(copy, expected | {done.out.split()[0]: content})


# a full disk ----------------------------------------------------------------------------------------------------------


def fill(folder: Path) -> None:
    """Take all that is left."""
    with (folder / "ballast").open("ab", buffering=0) as stream:
        for size in (2**20, 4096, 4096):
            with suppress(OSError):
                while stream.write(os.urandom(size)):
                    pass
            sync_file_system_of(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_fails_backups_but_neither_older_revisions_nor_forget(mount, guest: Guest, kind: str) -> None:
    folder = mount(kind, 320 * 2**20)
    directory = folder / "vm"
    expected = guest.history(directory)
    fill(folder)
    guest.image.write_bytes(random.Random(4).randbytes(12 * CHUNK_SIZE))

    failed = guest.backy("-b", directory, "backup", "daily")
    assert (failed.code, failed.err.count("\n")) == (ExitCode.FULL, 1)
    assert "No space left on device" in failed.err
    assert str(directory) in failed.err
    check(directory, expected)
    assert not list(directory.glob(".*.tmp"))

    forgotten = list(expected)[-1]
    assert guest.backy("-b", directory, "forget", "-r", forgotten).code == 0
    del expected[forgotten]
    check(directory, expected)
    (folder / "ballast").unlink()
    done = guest.backy("-b", directory, "backup", "daily")
    assert done.code == 0, done.err
    check(directory, expected | {done.out.split()[0]: guest.image.read_bytes()})


# SIGKILL --------------------------------------------------------------------------------------------------------------


def start(directory: Path) -> subprocess.Popen:
    code = "from backy.cli.main import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, "-b", directory, "backup", "daily"], stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_killed_at_any_moment_harms_nothing(mount, guest: Guest, rounds, kind: str) -> None:
    directory = mount(kind) / "vm"
    expected = guest.history(directory)
    began = time.monotonic()
    content = guest.scribble(10)
    with start(directory) as process:
        assert process.wait() == 0
    length = time.monotonic() - began
    expected[Repository.open(directory).records.history()[-1].id] = content

    killed, count = 0, rounds(4, 100)
    for number in range(count):
        content = guest.scribble(11 + number)
        with start(directory) as process:
            try:
                process.wait(length * (0.3 + 0.7 * (number + random.Random(number).random()) / count))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        complete = {revision.id for revision in Repository.open(directory).records.history()}
        expected |= dict.fromkeys(complete - expected.keys(), content)
        check(directory, expected)

        done = guest.backy("-b", directory, "backup", "daily")
        expected[done.out.split()[0]] = content
        check(directory, expected)
        assert not list(directory.glob(".*.tmp"))
        names = {path.name for path in directory.iterdir() if "." not in path.name}
        assert names == {"config", "README", "cow", "journal", "last", *expected}
        oldest = next(iter(expected))
        forgotten = guest.backy("-b", directory, "forget", "-r", oldest, "--force", "--reason", "a test")
        assert forgotten.code == 0
        assert guest.backy("-b", directory, "purge", "--trash").code == 0
        del expected[oldest]
    assert killed
