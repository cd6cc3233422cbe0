"""The storage `cow` on real file systems, used as commands use it."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE
from backy.backup.backup import Backup
from backy.errors import StorageError
from backy.groups.forget import forget
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.retention.purge import purge
from backy.testing.memory import MemoryRepository

COW = {"type": "cow"}
CONTENT = random.Random(1).randbytes(CHUNK_SIZE) + bytes(CHUNK_SIZE) + random.Random(2).randbytes(CHUNK_SIZE + 5000)


def used(folder: Path) -> int:
    """Bytes that are in use on the file system."""
    subprocess.run(["sync", "--file-system", folder], check=True)
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.fixture(params=["btrfs zstd", "xfs"])
def repository(request: pytest.FixtureRequest, mount: Callable) -> MemoryRepository:
    """An empty repository with `CONTENT` to be backed up."""
    repository = MemoryRepository.make(mount(request.param) / "vm", COW)
    repository.memory.content = CONTENT
    return repository


@pytest.fixture
def back_up(repository: MemoryRepository, clock: Callable) -> Callable[..., Revision]:
    """Back up what the image has, after bytes were written to it: `back_up({offset: bytes})`."""

    def back_up(changes: dict[int, bytes] | None = None) -> Revision:
        content = bytearray(repository.memory.content)
        for offset, data in (changes or {}).items():
            content[offset : offset + len(data)] = data
        repository.memory.content = bytes(content)
        return Backup(repository, ("daily",), clock=clock).run()

    return back_up


def test_a_revision_is_the_raw_image_read_only_and_last_leads_to_it(repository, back_up) -> None:
    for changes in ({}, {100: b"changed"}):
        revision = back_up(changes)
        path = repository.directory / revision.id
        assert path.read_bytes() == repository.memory.content
        assert stat.S_IMODE(path.stat().st_mode) == 0o440
        assert repository.raw_path(revision) == path
        assert (repository.directory / "last").readlink() == Path(revision.id)


def test_the_directory_has_what_the_reference_lists(repository, back_up) -> None:
    identity = back_up().id
    files = {path.name for path in repository.directory.iterdir()}
    revision = {identity, *(f"{identity}.{suffix}" for suffix in ("rev", "state", "map")), "last", "last.rev"}
    locks = {".backup", ".purge", ".records"}
    assert files == {
        "config",
        "README",
        "restore.py",
        "audit.py",
        "cow",
        "journal",
        ".compared",
        ".seq",
        *locks,
        *revision,
    }


def test_pages_of_zeroes_are_holes(repository, back_up) -> None:
    first, second = back_up(), back_up({PAGE_SIZE: bytes(2 * PAGE_SIZE), 2 * CHUNK_SIZE: bytes(CHUNK_SIZE)})

    assert second.statistics
    assert second.statistics.bytes_written == 2 * PAGE_SIZE + CHUNK_SIZE
    assert second.statistics.bytes_stored == 0
    with (repository.directory / second.id).open("rb") as stream:
        assert os.lseek(stream.fileno(), 0, os.SEEK_HOLE) == PAGE_SIZE
        assert os.lseek(stream.fileno(), PAGE_SIZE, os.SEEK_DATA) == 3 * PAGE_SIZE
    assert (repository.directory / first.id).read_bytes() == CONTENT


def test_space_follows_the_changed_pages(repository, back_up) -> None:
    first = back_up()
    assert first.statistics
    assert first.statistics.bytes_stored == 2 * CHUNK_SIZE + 5000
    before = used(repository.directory)
    chance = random.Random(3)
    pages = chance.sample(range(CHUNK_SIZE // PAGE_SIZE), 150)

    second = back_up({page * PAGE_SIZE: chance.randbytes(PAGE_SIZE) for page in pages})

    assert second.statistics
    assert second.statistics.bytes_stored == second.statistics.bytes_written == 150 * PAGE_SIZE
    assert used(repository.directory) - before < 2.5 * 150 * PAGE_SIZE


def test_a_forgotten_image_gives_its_space_back(repository, back_up) -> None:
    back_up()
    before = used(repository.directory)
    second = back_up({0: random.Random(4).randbytes(CHUNK_SIZE)})
    forget(repository, [second.id], "a test")
    purge(repository, everything=True)

    deadline = time.monotonic() + 30  # XFS frees the blocks of removed files in the background
    while used(repository.directory) - before > CHUNK_SIZE // 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (repository.directory / "last").readlink().name == repository.records.history()[0].id


@pytest.mark.parametrize("size", [1, PAGE_SIZE + 1, CHUNK_SIZE, CHUNK_SIZE + 1, 6 * CHUNK_SIZE - 1, 0])
def test_an_image_may_have_another_size_each_time(repository, back_up, size: int) -> None:
    first = back_up()
    repository.memory.content = CONTENT[:size].ljust(size, b"\0")
    second = back_up()
    repository.memory.content = CONTENT
    third = back_up()

    assert (repository.directory / second.id).read_bytes() == CONTENT[:size].ljust(size, b"\0")
    for revision in (first, third):
        assert (repository.directory / revision.id).read_bytes() == CONTENT


def test_damage_of_the_parent_is_reported_and_not_handed_on(repository, back_up) -> None:
    path = repository.directory / back_up().id
    path.chmod(0o600)
    with path.open("r+b") as stream:
        stream.write(b"damage")

    second = back_up({PAGE_SIZE: b"changed"})

    assert (repository.directory / second.id).read_bytes() == repository.memory.content
    assert [revision.damaged for revision in repository.records.history()] == [(0,), ()]


def test_an_image_that_is_missing_or_not_whole_is_not_built_upon(repository, back_up, backy) -> None:
    first = back_up()
    path = repository.directory / first.id
    path.chmod(0o600)
    os.truncate(path, len(CONTENT) + 1)

    assert back_up().parent is None
    scrub = backy("-b", repository.directory, "scrub", "light")
    assert (scrub.code, scrub.err.count("\n")) == (1, 1)
    assert f"the raw image {path} has {len(CONTENT) + 1} bytes instead of {len(CONTENT)}" in scrub.err
    path.unlink()
    newest = back_up()
    assert newest.parent == repository.records.history()[1].id
    forget(repository, [first.id], "a test")
    purge(repository, everything=True)
    assert backy("-b", repository.directory, "scrub", "deep").code == 0


def test_what_an_interrupted_backup_left_is_removed_by_the_next_one_or_a_purge(repository, back_up, backy) -> None:
    back_up()
    left = repository.directory / ".unfinished.tmp"
    mine = repository.directory / ".notes"
    for path in (left, mine):
        path.write_bytes(b"0123456789")
    assert backy("-b", repository.directory, "purge").out == "Purged: 1 file, 10 Bytes\n"
    assert not left.exists()

    left.write_bytes(b"0123456789")
    back_up()
    assert not left.exists()
    assert mine.exists()


def test_an_image_that_can_not_be_repaired_stays_damaged(repository, back_up) -> None:
    revision = back_up()
    (repository.directory / revision.id).unlink()
    with pytest.raises(StorageError, match="is missing: there is nothing left to repair"):
        repository.storage().repair(revision.id, 0, b"", CONTENT[:CHUNK_SIZE])
    assert not (repository.directory / revision.id).exists()


def test_the_last_chunk_of_an_image_is_repaired_to_its_length(repository, back_up) -> None:
    revision = back_up()
    path = repository.directory / revision.id
    identity = repository.records.read_map(revision)[3]
    for size in (len(CONTENT) - 1, len(CONTENT) + 1):
        path.chmod(0o600)
        os.truncate(path, size)
        repository.storage().repair(revision.id, 3, identity, CONTENT[3 * CHUNK_SIZE :])
        assert path.read_bytes() == CONTENT
        assert stat.S_IMODE(path.stat().st_mode) == 0o440


# where nothing can be shared ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ext4", "xfs without reflink"])
def test_init_refuses_a_file_system_without_clones_and_makes_nothing(mount, backy, kind: str) -> None:
    directory = mount(kind) / "vm"
    refused = backy("-b", directory, "init", "file", "/dev/null", "--storage", "cow")

    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert f"{directory} lies on a file system that can not share blocks" in refused.err
    assert "btrfs and XFS can" in refused.err
    assert not list(directory.iterdir())


def test_a_copy_where_nothing_can_be_shared_restores_but_takes_no_backup(
    repository, back_up, backy, mount, tmp_path
) -> None:
    back_up()
    back_up({0: b"changed"})
    copy = mount("ext4") / "vm"
    shutil.copytree(repository.directory, copy, symlinks=True)
    opened = MemoryRepository.open(copy)
    opened.memory.content = repository.memory.content

    for _ in range(2):
        with pytest.raises(StorageError, match=f"{copy} lies on a file system that can not share blocks"):
            Backup(opened, ("daily",)).run()
        for revision in opened.records.history():  # then without a parent
            opened.records.write_state(revision.changed(distrusted=True))

    assert [revision.id for revision in opened.records.history()] == [
        revision.id for revision in repository.records.history()
    ]
    assert {path.name for path in copy.iterdir()} == {path.name for path in repository.directory.iterdir()}
    assert backy("-b", copy, "restore", tmp_path / "target").code == 0
    assert (tmp_path / "target").read_bytes() == repository.memory.content


# the job --------------------------------------------------------------------------------------------------------------


def test_the_name_alone_chooses_it_in_config(mount, backy, image: Path) -> None:
    directory = mount("btrfs") / "vm"
    assert backy("-b", directory, "init", "file", image).code == 0
    config = directory / "config"
    text = config.read_text().replace("storage:\n  type: chunked", "storage: cow")
    config.unlink()
    config.write_text(text)
    shutil.rmtree(directory / "chunks")

    assert backy("-b", directory, "backup", "daily").code == 0
    assert (directory / "last").read_bytes() == image.read_bytes()
    repository = Repository.open(directory)
    assert repository.storage(repository.records.history()[0].storage).raw
