from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE
from backy.backup.backup import Backup
from backy.errors import ChunkDamageError, TargetError
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.restore.restore import restore
from backy.restore.target import ReadableTarget, open_target

OLD = b"\xaa"
DATA = 3 * CHUNK_SIZE + 1000
"""Bytes of the image that are in chunks with data."""


def silent(_length: int) -> None:
    """Show no progress."""


@pytest.fixture
def revision(repository: Repository, image: Path) -> Revision:
    """A revision with zeroes inside of a chunk, too."""
    with image.open("r+b") as stream:
        stream.seek(PAGE_SIZE)
        stream.write(bytes(3 * PAGE_SIZE))
    return Backup(repository, ("daily",)).run()


class Counting:
    """A target that counts what is written to it."""

    def __init__(self, target: ReadableTarget) -> None:
        self.target = target
        self.written = 0
        self._lock = threading.Lock()

    def pread(self, offset: int, length: int) -> bytes:
        return self.target.pread(offset, length)

    def pwrite(self, data: bytes, offset: int) -> None:
        with self._lock:
            self.written += len(data)
        self.target.pwrite(data, offset)

    def zero(self, offset: int, length: int) -> None:
        self.target.zero(offset, length)

    def finish(self) -> None:
        self.target.finish()


def open_kept(name: str, size: int, repository: Repository):
    return open_target(name, size, repository, {}, force=False, kept=True)


def resumed(repository: Repository, revision: Revision, path: Path) -> int:
    """Resume a restore; return how many bytes were written."""
    told: list[int] = []
    with repository.image(revision) as stored, open_kept(str(path), stored.size, repository) as target:
        counting = Counting(target)
        restore(stored, counting, told.append, resume=True)
        assert sum(told) == stored.size
    return counting.written


def test_what_is_right_is_left_alone(repository: Repository, revision: Revision, image: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(image.read_bytes())

    assert resumed(repository, revision, target) == 0
    assert target.read_bytes() == image.read_bytes()


def test_what_is_missing_or_wrong_is_written(
    repository: Repository, revision: Revision, image: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_bytes(image.read_bytes()[: 2 * CHUNK_SIZE] + OLD * CHUNK_SIZE)

    assert resumed(repository, revision, target) == DATA - CHUNK_SIZE
    assert target.read_bytes() == image.read_bytes()


@pytest.mark.parametrize("size", [0, 5 * CHUNK_SIZE + 1, 9 * CHUNK_SIZE])
def test_nothing_remains_of_whatever_was_there(
    repository: Repository, revision: Revision, image: Path, tmp_path: Path, size: int
) -> None:
    target = tmp_path / "target"
    target.write_bytes(OLD * size)

    resumed(repository, revision, target)
    assert target.read_bytes() == image.read_bytes()


def test_a_file_system_without_holes_will_do(
    repository: Repository, revision: Revision, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_arguments: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("backy.restore.target.punch_hole", unable)
    target = tmp_path / "target"
    target.write_bytes(OLD * CHUNK_SIZE + image.read_bytes()[CHUNK_SIZE : 2 * CHUNK_SIZE] + OLD * CHUNK_SIZE)

    resumed(repository, revision, target)
    assert target.read_bytes() == image.read_bytes()


def test_a_target_that_is_not_there_yet_is_made(
    repository: Repository, revision: Revision, image: Path, tmp_path: Path
) -> None:
    assert resumed(repository, revision, tmp_path / "target") == DATA - 3 * PAGE_SIZE
    assert (tmp_path / "target").read_bytes() == image.read_bytes()
    assert (tmp_path / "target").stat().st_blocks <= image.stat().st_blocks


def test_a_device_is_resumed(
    repository: Repository, revision: Revision, image: Path, tmp_path: Path, loop_device
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(image.read_bytes()[:CHUNK_SIZE] + OLD * (5 * CHUNK_SIZE))
    device = loop_device(disk)

    assert resumed(repository, revision, device) == DATA - CHUNK_SIZE
    assert device.read_bytes() == image.read_bytes() + OLD * (6 * CHUNK_SIZE - image.stat().st_size)


def test_a_target_that_is_right_needs_no_sound_chunk(
    repository: Repository, revision: Revision, image: Path, tmp_path: Path, spoil
) -> None:
    spoil(repository, revision, 0)
    (tmp_path / "good").write_bytes(image.read_bytes())
    (tmp_path / "bad").write_bytes(b"")

    assert resumed(repository, revision, tmp_path / "good") == 0
    with pytest.raises(TargetError, match=r"chunk .* is incomplete") as raised:
        resumed(repository, revision, tmp_path / "bad")
    assert isinstance(raised.value.__cause__, ChunkDamageError)


@pytest.mark.parametrize("name", ["-", "ceph-rbd:pool/image"])
def test_what_can_not_be_read_back_is_refused(repository: Repository, name: str) -> None:
    with (
        pytest.raises(TargetError, match="only files and block devices can be resumed"),
        open_kept(name, 5, repository),
    ):
        pass


def test_the_repository_is_no_target(repository: Repository) -> None:
    before = (repository.directory / "config").read_bytes()
    with (
        pytest.raises(TargetError, match="lies inside of the repository"),
        open_kept(os.fspath(repository.directory / "config"), 5, repository),
    ):
        pass
    assert (repository.directory / "config").read_bytes() == before
