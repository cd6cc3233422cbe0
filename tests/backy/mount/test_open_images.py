from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE, ImageReader
from backy.backup.backup import Backup
from backy.conversion.convert import Conversion
from backy.errors import DamageError
from backy.mount.open_images import ChunkCache, ImageFile, OpenImage, OpenImages
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.retention.purge import purge
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, exclusive


@pytest.fixture
def revision(repository: Repository) -> Revision:
    return Backup(repository, ("daily",)).run()


@pytest.fixture
def opened(repository: Repository, revision: Revision, cache: ChunkCache) -> OpenImage:
    return OpenImage(ImageFile(repository, revision), cache)


@pytest.fixture
def loaded(opened: OpenImage, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The chunks that were read from the storage."""
    numbers: list[int] = []
    load = opened._load

    def noted(index: int) -> bytes:
        numbers.append(index)
        return load(index)

    monkeypatch.setattr(opened, "_load", noted)
    return numbers


SIZE = 4 * CHUNK_SIZE + 1000


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, SIZE),
        (0, 2 * SIZE),
        (0, 0),
        (17, 4000),
        (CHUNK_SIZE - 1, 2),
        (CHUNK_SIZE - 1, CHUNK_SIZE + 2),
        (2 * CHUNK_SIZE, CHUNK_SIZE),
        (SIZE - 1, 1),
        (SIZE - 1, 4096),
        (SIZE, 1),
        (SIZE + 5, 1),
    ],
)
def test_any_part_reads_as_in_the_image(opened: OpenImage, image: Path, offset: int, length: int) -> None:
    assert opened.read(offset, length) == image.read_bytes()[offset : offset + length]


def test_zero_chunks_are_not_read(opened: OpenImage, loaded: list[int]) -> None:
    assert opened.read(CHUNK_SIZE, CHUNK_SIZE) == bytes(CHUNK_SIZE)
    assert loaded == []


def test_the_same_chunk_elsewhere_is_not_read_again(opened: OpenImage, loaded: list[int]) -> None:
    assert opened.read(2 * CHUNK_SIZE, CHUNK_SIZE) == opened.pread(3 * CHUNK_SIZE, CHUNK_SIZE)
    assert loaded == [2]


def test_reading_from_front_to_back_reads_ahead(opened: OpenImage, cache: ChunkCache) -> None:
    opened.read(CHUNK_SIZE - 10, 10)
    assert list(cache._chunks) == [opened.chunks[0]]
    # holes are left out, and do not count
    opened.read(CHUNK_SIZE, 10)
    assert list(cache._chunks) == [opened.chunks[0], opened.chunks[2], opened.chunks[4]]


def test_two_who_read_from_front_to_back_are_read_ahead_for(opened: OpenImage, cache: ChunkCache) -> None:
    for index in (0, 3, 1):
        opened.read(index * CHUNK_SIZE, 10)
    assert set(cache._chunks) == {opened.chunks[index] for index in (0, 2, 4)}


def test_reading_here_and_there_does_not(opened: OpenImage, cache: ChunkCache) -> None:
    for index in (4, 2, 0):
        opened.read(index * CHUNK_SIZE, 10)
    assert list(cache._chunks) == [opened.chunks[index] for index in (4, 2, 0)]


def test_bytes_of_a_damaged_chunk_can_not_be_read_and_all_others_can(
    opened: OpenImage, repository: Repository, image: Path, spoil, caplog
) -> None:
    logging.getLogger("backy").propagate = True
    (revision,) = repository.records.history()
    spoil(repository, revision, 2)
    content = image.read_bytes()

    for offset in (2 * CHUNK_SIZE, 3 * CHUNK_SIZE + 5, 3 * CHUNK_SIZE - 1):
        with pytest.raises(OSError, match="chunk") as raised:
            opened.read(offset, 2)
        assert raised.value.errno == errno.EIO
    assert opened.read(0, 2 * CHUNK_SIZE) == content[: 2 * CHUNK_SIZE]
    assert opened.read(4 * CHUNK_SIZE, 1000) == content[4 * CHUNK_SIZE :]
    (line,) = caplog.messages
    assert line.startswith(f"vm: revision {revision.id} can not be read from byte {2 * CHUNK_SIZE} to {3 * CHUNK_SIZE}")


def test_a_missing_chunk_is_like_a_damaged_one(
    opened: OpenImage, repository: Repository, revision: Revision, spoil
) -> None:
    spoil(repository, revision, 0).unlink()

    with pytest.raises(OSError, match="no file with this chunk") as raised:
        opened.read(0, 1)
    assert raised.value.errno == errno.EIO


def test_what_was_repaired_can_be_read_at_once(
    opened: OpenImage, repository: Repository, revision: Revision, image: Path, spoil
) -> None:
    spoil(repository, revision, 0)
    with pytest.raises(OSError, match="chunk"):
        opened.read(0, 1)
    repository.storage().repair(revision.id, 0, opened.chunks[0], image.read_bytes()[:CHUNK_SIZE])

    assert opened.read(0, 4) == image.read_bytes()[:4]


def test_a_sound_copy_in_another_repository_is_read_after_a_damaged_one(
    opened: OpenImage, repository: Repository, cache: ChunkCache, image: Path, spoil
) -> None:
    (revision,) = repository.records.history()
    copy = shutil.copytree(repository.directory, image.parent / "copy")
    sound = OpenImage(ImageFile(Repository.open(copy), revision), cache)
    spoil(repository, revision, 0)
    with pytest.raises(OSError, match="chunk"):
        opened.read(0, 1)

    assert sound.read(0, 4) == image.read_bytes()[:4]


def test_a_removed_revision_is_stale_once_its_chunks_are_gone(
    opened: OpenImage, repository: Repository, revision: Revision, image: Path, caplog
) -> None:
    logging.getLogger("backy").propagate = True
    before = image.read_bytes()
    assert opened.read(0, 10) == before[:10]
    image.write_bytes(bytes(SIZE))
    Backup(repository, ("daily",)).run()
    repository.remove(revision.id)
    assert opened.read(4 * CHUNK_SIZE, 10) == before[4 * CHUNK_SIZE :][:10]
    purge(repository)

    with pytest.raises(OSError, match="was removed") as raised:
        opened.read(2 * CHUNK_SIZE, 10)
    assert raised.value.errno == errno.ESTALE
    assert opened.read(0, 10) == before[:10]
    # the image lost all its data, which is told; nothing else is
    assert [message for message in caplog.messages if " shrank from " not in message] == []


def test_a_damaged_record_does_not_make_a_revision_stale(
    opened: OpenImage, repository: Repository, revision: Revision, spoil
) -> None:
    record = repository.directory / f"{revision.id}.rev"
    record.chmod(0o600)
    record.write_text("{}")
    spoil(repository, revision, 0)

    with pytest.raises(OSError, match="chunk") as raised:
        opened.read(0, 1)
    assert raised.value.errno == errno.EIO


def test_an_open_image_keeps_no_purge_waiting(opened: OpenImage, repository: Repository, image: Path) -> None:
    opened.read(0, 10)
    with exclusive(repository.directory, BACKUP_LOCK), exclusive(repository.directory, PURGE_LOCK):
        assert opened.read(2 * CHUNK_SIZE, 10) == image.read_bytes()[2 * CHUNK_SIZE :][:10]


def test_a_delta_that_a_purge_removes_for_a_full_chunk_is_no_damage(
    repository: Repository, revision: Revision, cache: ChunkCache, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instant between finding the delta's name and reading it is where the full one appears and the delta goes."""
    with image.open("r+b") as stream:
        stream.seek(5 * PAGE_SIZE)
        stream.write(b"changed")
    changed = Backup(repository, ("daily",)).run()
    (delta,) = repository.directory.glob("chunks/??/*.delta")
    opened = OpenImage(ImageFile(repository, changed), cache)
    reader = opened.reader
    read = reader.read

    def too_late(index: int, identity: bytes) -> bytes:
        file = reader.locate(identity)
        repository.storage().repair(changed.id, 0, identity, image.read_bytes()[:CHUNK_SIZE])
        purge(repository)
        monkeypatch.setattr(reader, "read", read)
        return reader.delta(file)  # which is gone

    monkeypatch.setattr(reader, "read", too_late)
    assert opened.read(0, CHUNK_SIZE) == image.read_bytes()[:CHUNK_SIZE]
    assert not delta.exists()


def test_what_was_converted_can_be_read_by_those_who_have_it_open(
    mount: Callable[..., Path], repository: Repository, image: Path, cache: ChunkCache
) -> None:
    repository = Repository.initialize(mount("btrfs") / "vm", repository.config)
    opened = OpenImage(ImageFile(repository, Backup(repository, ("daily",)).run()), cache)
    Conversion(Repository.open(repository.directory), "cow").run()
    assert not (repository.directory / "chunks").exists()

    assert opened.read(0, SIZE) == image.read_bytes()


class Closing:
    """A storage that counts the readers that are open."""

    def __init__(self, storage) -> None:
        self._storage = storage
        self.open_readers = 0

    @contextmanager
    def open(self, revision_id: str) -> Iterator[ImageReader]:
        with self._storage.open(revision_id) as reader:
            self.open_readers += 1
            try:
                yield reader
            finally:
                self.open_readers -= 1


def test_an_image_is_open_once_as_long_as_anybody_needs_it(
    repository: Repository,
    revision: Revision,
    cache: ChunkCache,
    spoil: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = Closing(repository.storage())
    monkeypatch.setattr(repository, "storage", lambda _name: storage)
    images = OpenImages(cache)
    first, second = (images.open(ImageFile(repository, revision)) for _ in range(2))
    assert first is second
    assert storage.open_readers == 1
    del second
    assert storage.open_readers == 1
    first.read(0, 10)
    # a failure has a traceback, and that has the image
    spoil(repository, revision, 2).unlink()
    with pytest.raises(OSError, match="there is no file with this chunk"):
        first.read(2 * CHUNK_SIZE, 10)
    del first
    assert storage.open_readers == 0


def test_an_image_with_a_damaged_map_can_not_be_opened(
    repository: Repository, revision: Revision, cache: ChunkCache
) -> None:
    repository.records.map_path(revision.id).unlink()
    images = OpenImages(cache)

    with pytest.raises(DamageError, match="is missing"):
        images.open(ImageFile(repository, revision))
