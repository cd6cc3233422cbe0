"""What holds of shared chunks holds of storages that keep one raw file for each revision, too.

Of `cow`, which does so, and of a plain one that depends on no file system.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, ChunkDamageError, Held, Job, Purged, Stored, identify
from backy.backup.backup import Backup
from backy.groups.forget import forget
from backy.integrity import quarantine
from backy.integrity.damage import Judge, distrusted
from backy.repository.config import JobConfig, SourceSection, StorageSection
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Trust, utc_now
from backy.repository.sealed import FORMAT
from backy.scrubbing.scrub import Scrub, Scrubbed

OLD, NEW = range(2)


class RawFile:
    """Reads and writes one raw image."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        with self.path.open("r+b") as stream:
            os.pwrite(stream.fileno(), data, index * CHUNK_SIZE)
        return len(data)

    def zero(self, index: int) -> None:
        length = min(CHUNK_SIZE, self.size - index * CHUNK_SIZE)
        self.write(index, b"", bytes(length), None)

    def commit(self) -> Stored:
        return Stored(self.size)

    def read(self, index: int, chunk_id: bytes) -> bytes:
        try:
            with self.path.open("rb") as stream:
                return os.pread(stream.fileno(), CHUNK_SIZE, index * CHUNK_SIZE)
        except OSError as error:
            raise ChunkDamageError(chunk_id, f"{self.path.name}: {error.strerror}") from error

    def probe(self, index: int, chunk_id: bytes) -> None:
        if not self.path.exists() or self.path.stat().st_size <= index * CHUNK_SIZE:
            raise ChunkDamageError(chunk_id, f"{self.path.name} is missing or cut short")


class RawStorage:
    """Keeps one raw file for each revision."""

    raw = True
    shares_chunks = False

    def __init__(self, job: Job) -> None:
        self.directory = job.directory

    @property
    def identity(self) -> str:
        return "rawimages"

    def initialize(self, identity: str) -> None:
        pass

    @contextmanager
    def create(self, revision_id: str, parent: str | None, size: int, reliable: Container[bytes]) -> Iterator[RawFile]:
        path = self.directory / revision_id
        if parent is None:
            path.touch()
        else:
            shutil.copy(self.directory / parent, path)
        os.truncate(path, size)
        yield RawFile(path, size)

    @contextmanager
    def open(self, revision_id: str) -> Iterator[RawFile]:
        yield RawFile(self.directory / revision_id, 0)

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        (self.directory / revision_id).touch()
        RawFile(self.directory / revision_id, 0).write(index, chunk_id, data, None)

    def remove(self, revision_id: str) -> None:
        (self.directory / revision_id).unlink(missing_ok=True)

    def held(self, live: Container[bytes]) -> Held:
        return Held()

    def purge(self, live: Container[bytes]) -> Purged:
        return Purged()


class RawRepository(Repository):
    """A repository whose images are raw files."""

    def damage(self, number: int, index: int) -> bytes:
        """Damage a chunk of a revision and return the id of what was there."""
        revision = self.records.history()[number]
        RawFile(self.directory / revision.id, 0).write(index, b"", b"damage", None)
        return self.records.read_map(revision)[index]

    def trust(self) -> list[Trust]:
        return [revision.trust for revision in self.records.history()]


class CopyingRepository(RawRepository):
    """One with the storage above."""

    def storage(self, name: str | None = None) -> RawStorage:
        return RawStorage(self.job)


def scrub(repository: Repository, **options) -> Scrubbed:
    return Scrub(repository, deep=options.pop("deep", True), clock=utc_now, **options).run()


def backup(repository: Repository) -> Revision:
    return Backup(repository, ("daily",)).run()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two chunks, a hole, a third and a short one."""
    path = tmp_path / "disk.img"
    pieces = [b"1" * CHUNK_SIZE, b"2" * CHUNK_SIZE, bytes(CHUNK_SIZE), b"3" * CHUNK_SIZE, b"the short one"]
    path.write_bytes(b"".join(pieces))
    return path


@pytest.fixture(params=["copies", "btrfs", "xfs"])
def repository(request: pytest.FixtureRequest, tmp_path: Path, mount: Callable, image: Path) -> RawRepository:
    """Two revisions, of which only the second chunk differs: copies of a file as above, or clones by `cow`."""
    config = JobConfig(format=FORMAT, source=SourceSection({"type": "file", "filename": str(image)}))
    if request.param == "copies":
        repository: RawRepository = CopyingRepository.initialize(tmp_path / "vm", config)
    else:
        config.storage = StorageSection.named("cow")
        repository = RawRepository.initialize(mount(request.param) / "vm", config)
    backup(repository)
    with image.open("r+b") as stream:
        os.pwrite(stream.fileno(), b"changed", CHUNK_SIZE)
    backup(repository)
    return repository


def test_sound_copies_raise_no_alarm(repository: RawRepository) -> None:
    for deep in (False, True):
        found = scrub(repository, deep=deep)
        assert (found.total, found.chunks, found.damaged, found.problems) == (8, 8, [], [])
    assert Judge(repository).verify(repository.records.history()[OLD]).trust is Trust.VERIFIED
    assert not quarantine.count(repository.directory)


@pytest.mark.parametrize("number", [OLD, NEW])
def test_damage_in_one_copy_is_no_damage_in_the_other(repository: RawRepository, number: int) -> None:
    bad = repository.damage(number, 0)

    found = scrub(repository)

    assert [error.chunk_id for error in found.damaged] == [bad]
    assert found.distrusted == [repository.records.history()[number].id]
    assert repository.records.history()[number].damaged == (0,)
    assert repository.trust()[1 - number] is Trust.TRUSTED
    judged = Judge(repository).verify(repository.records.history()[1 - number])
    assert judged.trust is Trust.VERIFIED


def test_a_light_scrub_sees_that_a_file_is_gone(repository: RawRepository) -> None:
    old = repository.records.history()[OLD]
    (repository.directory / old.id).unlink()

    assert scrub(repository, deep=False).distrusted == [old.id]
    assert repository.records.history()[OLD].damaged == (0, 1, 3, 4)


def test_a_backup_repairs_its_own_copy_and_that_of_its_parent(repository: RawRepository) -> None:
    bad = repository.damage(NEW, 0)

    backup(repository)

    (finding,) = quarantine.findings(repository.directory)
    assert (finding.chunk_id, finding.repaired) == (bad.hex(), True)
    assert repository.trust() == [Trust.TRUSTED] * 3
    assert scrub(repository).damaged == []


def test_an_old_copy_without_its_content_in_the_source_stays_damaged_every_night(
    repository: RawRepository, caplog: pytest.LogCaptureFixture, tree: Callable
) -> None:
    repository.damage(OLD, 1)
    scrub(repository)
    kept = tree(repository.directory / quarantine.FOLDER)

    for _ in range(2):
        caplog.clear()
        assert backup(repository).parent is not None
        assert f"revision {repository.records.history()[OLD].id} is distrusted: 1 of its chunks" in caplog.text
        assert tree(repository.directory / quarantine.FOLDER) == kept

    with repository.directory.joinpath(".backup").open():
        forget(repository, [repository.records.history()[OLD].id], "a test", force=True)
    caplog.clear()
    backup(repository)
    assert caplog.text == ""


def test_a_scrub_goes_on_where_the_one_before_stopped(repository: RawRepository) -> None:
    """Its time is over after each chunk, so eight of them see all there is, and the ninth sees the first once more."""
    everything = [
        (revision.id, index)
        for revision in repository.records.history()
        for index in repository.records.read_map(revision).data()
    ]
    for name, index in sorted(everything):
        RawFile(repository.directory / name, 0).write(index, b"", b"damage", None)
    seen = []
    for _ in range(9):
        found = scrub(repository, longest=timedelta(0))
        assert (found.chunks, found.complete) == (1, False)
        seen += [error.chunk_id for error in found.damaged]

    revisions = sorted(repository.records.history(), key=lambda revision: revision.id)
    expected = [repository.records.read_map(revision)[index] for revision in revisions for index in (0, 1, 3, 4)]
    assert seen == [*expected, expected[0]]


def test_a_copy_that_is_forgotten_while_it_is_read_is_no_damage(repository: RawRepository) -> None:
    last = max(repository.records.history(), key=lambda revision: revision.id)

    def step(_name: str, _total: int) -> Callable[[int], None]:
        forget(repository, [last.id], "a test", force=True)
        return lambda _length: None

    found = scrub(repository, steps=step)

    assert (found.damaged, found.problems) == ([], [])


def test_what_is_doubted_is_not_built_upon(repository: RawRepository) -> None:
    bad = repository.damage(NEW, 0)
    distrusted(repository, repository.records.history()[NEW])

    new = backup(repository)

    assert new.parent is None
    assert repository.records.history()[NEW].damaged == (0,)
    assert identify(RawFile(repository.directory / new.id, 0).read(0, bad)) == bad
