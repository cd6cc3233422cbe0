from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.backup.backup import Backup
from backy.image.stored import ZERO, ChunkMap
from backy.mount.open_images import ChunkCache, ImageFile
from backy.mount.operations import Operations
from backy.mount.tree import Single, Tree
from backy.repository.repository import Repository
from backy.repository.revision import Revision


@pytest.fixture
def revision(repository: Repository) -> Revision:
    return Backup(repository, ("daily",)).run()


@pytest.fixture
def operations(repository: Repository, revision: Revision, cache: ChunkCache, tmp_path: Path) -> Iterator[Operations]:
    made = Operations(Tree(repository), cache, tmp_path / "mountpoint")
    made.init_with_config(None, None)
    yield made
    made.destroy("/")


def refused(call: Callable[[], object]) -> int:
    """Return the number of the error that a call ends with."""
    try:
        call()
    except OSError as error:
        return error.errno
    pytest.fail("no error")


def test_a_revision_has_the_size_and_time_of_what_was_backed_up(
    operations: Operations, revision: Revision, image: Path
) -> None:
    found = operations.getattr(f"/{revision.id}")

    assert (found["st_mode"], found["st_size"]) == (stat.S_IFREG | 0o440, image.stat().st_size)
    assert found["st_mtime"] // 1000 == round(revision.timestamp.timestamp() * 10**6)
    assert found["st_blocks"] == (3 * CHUNK_SIZE + 1024) // 512
    assert found["st_uid"] == os.geteuid()


def test_an_image_of_zeroes_takes_no_blocks(operations: Operations, repository: Repository, image: Path) -> None:
    image.write_bytes(bytes(2 * CHUNK_SIZE))
    revision = Backup(repository, ("daily",)).run()

    assert operations.getattr(f"/{revision.id}")["st_blocks"] == 0


def test_folders_and_links(operations: Operations, revision: Revision) -> None:
    assert operations.getattr("/")["st_mode"] == stat.S_IFDIR | 0o550
    assert operations.getattr("/last")["st_size"] == len(revision.id)
    assert operations.readlink("/last") == revision.id
    assert operations.readdir("/by-tag", 0) == [".", "..", "daily"]


def test_what_does_not_fit_a_name_is_refused(operations: Operations, revision: Revision) -> None:
    assert refused(lambda: operations.getattr("/nothing")) == errno.ENOENT
    assert refused(lambda: operations.readdir("/last", 0)) == errno.ENOTDIR
    assert refused(lambda: operations.readlink(f"/{revision.id}")) == errno.EINVAL
    assert refused(lambda: operations.open("/by-tag", os.O_RDONLY)) == errno.EISDIR


def test_an_image_is_read_through_a_handle(operations: Operations, revision: Revision, image: Path) -> None:
    first = operations.open(f"/{revision.id}", os.O_RDONLY)
    second = operations.open(f"/{revision.id}", os.O_RDONLY)

    assert len(operations.handles) == 2
    operations.release(f"/{revision.id}", first)
    assert (
        operations.read(f"/{revision.id}", 100, CHUNK_SIZE - 50, second) == image.read_bytes()[CHUNK_SIZE - 50 :][:100]
    )
    operations.release(f"/{revision.id}", second)
    assert len(operations.handles) == 0


def test_an_open_file_outlives_its_name(operations: Operations, repository: Repository, revision: Revision) -> None:
    handle = operations.open(f"/{revision.id}", os.O_RDONLY)
    before = operations.getattr(f"/{revision.id}")
    repository.remove(revision.id)

    assert refused(lambda: operations.getattr(f"/{revision.id}")) == errno.ENOENT
    assert operations.getattr(f"/{revision.id}", handle) == before
    assert len(operations.read(f"/{revision.id}", 10, 0, handle)) == 10


def test_a_held_image_can_be_opened_when_its_revision_is_removed(
    repository: Repository, revision: Revision, cache: ChunkCache, image: Path
) -> None:
    operations = Operations(Single(ImageFile(repository, revision)), cache, image.parent / "mountpoint")
    operations.init_with_config(None, None)
    before = operations.getattr(f"/{revision.id}")
    operations.hold(ImageFile(repository, revision))
    repository.remove(revision.id)
    handle = operations.open(f"/{revision.id}", os.O_RDONLY)
    assert operations.read(f"/{revision.id}", 2**30, 0, handle) == image.read_bytes()
    assert operations.getattr(f"/{revision.id}") == before
    assert operations.readdir("/", 0) == [".", "..", revision.id]
    assert refused(lambda: operations.getattr("/last")) == errno.ENOENT
    operations.release(f"/{revision.id}", handle)


def test_a_damaged_map_is_told_when_a_file_is_opened(
    operations: Operations, repository: Repository, revision: Revision, caplog
) -> None:
    logging.getLogger("backy").propagate = True
    repository.records.map_path(revision.id).unlink()

    assert operations.getattr(f"/{revision.id}")["st_blocks"] == (4 * CHUNK_SIZE + 1024) // 512
    assert refused(lambda: operations.open(f"/{revision.id}", os.O_RDONLY)) == errno.EIO
    assert f"vm: revision {revision.id} can not be opened: " in caplog.text


def test_a_revision_that_is_removed_while_it_is_opened_is_not_there(
    operations: Operations, repository: Repository, revision: Revision, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger("backy").propagate = True
    read_map = repository.records.read_map

    def too_late(wanted: Revision) -> ChunkMap:
        repository.remove(wanted.id)
        return read_map(wanted)

    monkeypatch.setattr(repository.records, "read_map", too_late)
    assert refused(lambda: operations.open(f"/{revision.id}", os.O_RDONLY)) == errno.ENOENT
    assert caplog.messages == []


def test_data_and_holes_are_found_as_the_map_has_them(operations: Operations, revision: Revision) -> None:
    handle = operations.open(f"/{revision.id}", os.O_RDONLY)
    size = 4 * CHUNK_SIZE + 1000

    assert operations.lseek(5, os.SEEK_DATA, handle) == 5
    assert operations.lseek(5, os.SEEK_HOLE, handle) == CHUNK_SIZE
    assert operations.lseek(CHUNK_SIZE + 5, os.SEEK_HOLE, handle) == CHUNK_SIZE + 5
    assert operations.lseek(CHUNK_SIZE + 5, os.SEEK_DATA, handle) == 2 * CHUNK_SIZE
    assert operations.lseek(2 * CHUNK_SIZE, os.SEEK_HOLE, handle) == size
    assert refused(lambda: operations.lseek(size, os.SEEK_DATA, handle)) == errno.ENXIO


def test_there_is_no_data_in_a_hole_at_the_end(operations: Operations, revision: Revision) -> None:
    handle = operations.open(f"/{revision.id}", os.O_RDONLY)
    chunks = operations.handles[handle].chunks
    assert isinstance(chunks, ChunkMap)
    chunks[4] = ZERO

    assert refused(lambda: operations.lseek(4 * CHUNK_SIZE, os.SEEK_DATA, handle)) == errno.ENXIO
    assert operations.lseek(4 * CHUNK_SIZE + 3, os.SEEK_HOLE, handle) == 4 * CHUNK_SIZE + 3
