from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.answers.images import Forecast, forecast
from backy.api import CHUNK_SIZE
from backy.backup.backup import Backup
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.system.progress import quiet


@pytest.fixture
def revision(repository: Repository) -> Revision:
    return Backup(repository, ("daily",)).run()


def two_seconds() -> Iterator[float]:
    yield 100.0
    yield 102.0


def look(repository: Repository, revision: Revision) -> Forecast:
    with repository.image(revision) as image:
        return forecast(image, quiet, two_seconds().__next__)


def test_what_is_read_and_written_is_told(repository: Repository, revision: Revision, image: Path) -> None:
    found = look(repository, revision)
    sizes = [path.stat().st_size for path in repository.directory.glob("chunks/??/*")]

    assert found.size == image.stat().st_size
    assert found.data == 3 * CHUNK_SIZE + 1000
    assert found.stored == sum(sizes) + max(sizes)  # one of them is in the image twice
    assert (found.sampled, found.seconds, found.estimate) == (found.data, 2.0, 2.0)
    assert found.damaged == {}


def test_a_sample_tells_how_long_all_takes() -> None:
    assert Forecast(size=1000, data=800, sampled=200, seconds=3.0).estimate == 12.0
    assert Forecast(size=1000, data=0).estimate is None


def test_chunks_that_are_missing_or_damaged_are_told(repository: Repository, revision: Revision, spoil) -> None:
    spoil(repository, revision, 0).unlink()
    spoil(repository, revision, 2)
    found = look(repository, revision)

    assert sorted(found.damaged) == [0, 2, 3]
    assert found.sampled == 1000


def test_a_storage_need_not_know_what_it_reads(
    repository: Repository, revision: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = repository.storage()
    opened = storage.open

    @contextmanager
    def silent(revision_id: str):
        with opened(revision_id) as reader:
            monkeypatch.setattr(reader, "probe", lambda _index, _identity: None)
            yield reader

    monkeypatch.setattr(storage, "open", silent)
    monkeypatch.setattr(repository, "storage", lambda _name: storage)

    assert look(repository, revision).stored is None
