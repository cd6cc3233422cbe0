"""What ten revisions take on the disk, as the file system counts it."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from backy.answers.space import held_by, occupied
from backy.api import CHUNK_SIZE, PAGE_SIZE, Held
from backy.backup.backup import Backup
from backy.errors import StorageError
from backy.groups.forget import forget
from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.testing.memory import MemoryRepository

SIZE = 32 * 2**20
REVISIONS = 10


def used(folder: Path) -> int:
    """Bytes that are in use on the file system, as df(1) says."""
    subprocess.run(["sync", "--file-system", folder], check=True)
    return shutil.disk_usage(folder).used


def told_by_btrfs(folder: Path) -> int:
    """Bytes that the files take, what they share counted once."""
    command = ["btrfs", "filesystem", "du", "--summarize", "--raw", folder]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[1]
    _, exclusive, shared, _ = line.split()
    return int(exclusive) + int(shared)


def test_what_is_in_the_trash_is_referred_to_also_if_all_moves_meanwhile(tmp_path: Path, clock, monkeypatch) -> None:
    repository = MemoryRepository.make(tmp_path / "vm", {"type": "chunked"})
    content = bytearray(random.Random(1).randbytes(CHUNK_SIZE))
    for number in range(2):
        content[:PAGE_SIZE] = bytes([number + 1]) * PAGE_SIZE
        repository.memory.content = bytes(content)
        Backup(repository, ("daily",), clock=clock).run()
    forget(repository, ["1"], clock=clock, events=Events())
    listed = repository.records.history(trash=True)
    assert held_by(repository, repository.records.history()).files == 1
    storage = Repository.storage

    def moved(*words: object) -> object:
        monkeypatch.setattr(Repository, "storage", storage)
        repository.records.change(listed[-1], tags=("changed",))
        raise StorageError("it has been given up")

    monkeypatch.setattr(Repository, "storage", moved)
    assert held_by(repository, listed) == Held(0, 0)


@pytest.mark.parametrize("pages", [1, 64], ids=["scattered pages", "runs of pages"])
@pytest.mark.parametrize("kind", ["btrfs", "btrfs zstd", "xfs"])
def test_ten_revisions_take_little_more_than_image_and_changes(mount, clock, kind: str, pages: int) -> None:
    chance = random.Random(1)
    folder = mount(kind)
    before = used(folder)
    repository = MemoryRepository.make(folder / "vm", {"type": "cow"})
    repository.memory.verifier = "none"
    content = bytearray(chance.randbytes(SIZE))
    changed = 0
    for number in range(REVISIONS + 1):
        if number:
            for place in chance.sample(range(SIZE // PAGE_SIZE // pages), SIZE // PAGE_SIZE // pages // 100):
                offset, length = place * pages * PAGE_SIZE, pages * PAGE_SIZE
                content[offset : offset + length] = chance.randbytes(length)
                changed += length
        repository.memory.content = bytes(content)
        Backup(repository, ("daily",), clock=clock).run()

    assert used(folder) - before <= 1.15 * (SIZE + changed)
    told = occupied(repository.directory).total
    assert SIZE + changed <= told <= used(folder) - before + 2**20
    if kind.startswith("btrfs"):
        assert told_by_btrfs(repository.directory) <= 1.15 * (SIZE + changed)
    stored = sum(revision.statistics.bytes_stored for revision in repository.records.history() if revision.statistics)
    assert stored == SIZE + changed
