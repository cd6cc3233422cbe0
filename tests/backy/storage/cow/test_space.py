"""What ten revisions take on the disk, as the file system counts it."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from backy.api import PAGE_SIZE
from backy.backup.backup import Backup
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
    if kind.startswith("btrfs"):
        assert told_by_btrfs(repository.directory) <= 1.15 * (SIZE + changed)
    stored = sum(revision.statistics.bytes_stored for revision in repository.records.history() if revision.statistics)
    assert stored == SIZE + changed
