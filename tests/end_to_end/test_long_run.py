"""A repository over many backups: whatever happens to disk and revisions, each revision is what the disk was."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from backy.api import CHUNK_SIZE, PAGE_SIZE
from backy.errors import ExitCode


class Disk:
    """A disk that changes as disks do: pages, whole areas, discarded ones, and another size now and then."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path = path
        self._chance = chance
        path.write_bytes(b"")

    def work(self) -> None:
        """Change something."""
        size = self.path.stat().st_size
        with self.path.open("r+b") as stream:
            if self._chance.random() < 0.3:
                size = self._chance.randrange(6 * CHUNK_SIZE)
                stream.truncate(size)
            for _ in range(self._chance.randrange(4)):
                length = self._chance.choice([1, PAGE_SIZE, 64 * 1024, CHUNK_SIZE + 1])
                offset = self._chance.randrange(size + 1)
                stream.seek(offset)
                length = min(length, size - offset)
                stream.write(bytes(length) if self._chance.random() < 0.3 else self._chance.randbytes(length))


def test_every_revision_is_what_the_disk_was_at_its_time(
    tmp_path: Path, backy: Callable, rounds: Callable[[int, int], int]
) -> None:
    chance = random.Random(3)
    disk = Disk(tmp_path / "disk.img", chance)
    repository = tmp_path / "vm"
    target = tmp_path / "restored.img"
    expected: dict[str, bytes] = {}
    assert backy("-b", repository, "init", "file", disk.path).code == ExitCode.DONE

    for _ in range(rounds(12, 400)):
        disk.work()
        done = backy("-b", repository, "backup", "daily")
        assert done.code == ExitCode.DONE, done.err
        expected[done.out.split()[0]] = disk.path.read_bytes()
        if len(expected) > 4:
            forgotten = chance.choice(sorted(expected))
            del expected[forgotten]
            meant = ["--force", "--reason", "a test"]
            assert backy("-b", repository, "forget", "-r", forgotten, *meant).code == ExitCode.DONE
            assert backy("-b", repository, "purge", "--trash").code == ExitCode.DONE

        for revision, content in expected.items():
            assert backy("-b", repository, "restore", "--force", "-r", revision, target).code == ExitCode.DONE
            assert target.read_bytes() == content

    assert backy("-b", repository, "scrub", "deep").code == ExitCode.DONE
