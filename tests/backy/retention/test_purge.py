from __future__ import annotations

from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.errors import DamageError, RepositoryBusyError
from backy.groups.forget import forget
from backy.repository.repository import Repository
from backy.retention.purge import purge


def chunk_files(repository: Repository) -> set[Path]:
    return set((repository.directory / "chunks").glob("??/*"))


@pytest.fixture
def histories(repository: Repository, image: Path, clock):
    """Make two revisions that share no chunk that holds data."""
    first = Backup(repository, ("old",), clock=clock).run()
    image.write_bytes(b"another image entirely")
    return first, Backup(repository, ("new",), clock=clock).run()


def test_purge_removes_what_only_forgotten_revisions_had(repository: Repository, histories) -> None:
    first, second = histories
    assert purge(repository).files == 0
    before = chunk_files(repository)
    forget(repository, [first.id])
    size = sum(path.stat().st_size for path in before)
    assert purge(repository).files == 0, "it is in the trash"
    purged = purge(repository, everything=True)

    assert purged.files == len(before) - 1 == 3
    assert purged.bytes == size - sum(path.stat().st_size for path in chunk_files(repository))
    with repository.image(second) as image:
        assert image.pread(0, image.size) == b"another image entirely"


def test_chunks_of_a_damaged_record_are_kept(repository: Repository, histories) -> None:
    first, _ = histories
    path = repository.directory / f"{first.id}.rev"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(b"")

    assert purge(repository).files == 0
    path.write_bytes(content)
    with repository.image(first) as image:
        assert len(image.pread(0, image.size)) == first.size


@pytest.mark.parametrize("missing", [True, False])
def test_nothing_is_purged_while_a_map_can_not_be_read(repository: Repository, histories, missing: bool) -> None:
    first, second = histories
    before = chunk_files(repository)
    repository.records.map_path(first.id).unlink()
    if not missing:
        repository.records.map_path(first.id).write_bytes(b"torn")

    with pytest.raises(DamageError, match=f"nothing is purged.*'backy forget -r {first.id}' first"):
        purge(repository)
    assert chunk_files(repository) == before
    forget(repository, [first.id])
    assert purge(repository).files == 3
    assert repository.records.history() == [second]


def test_purge_does_not_start_while_somebody_reads(repository: Repository, histories) -> None:
    with repository.image(histories[0]), pytest.raises(RepositoryBusyError):
        purge(repository)
