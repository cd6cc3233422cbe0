from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backy.backup.backup import Backup
from backy.errors import DamageError, RevisionNotFoundError
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Revision


@pytest.fixture
def back_up(repository: Repository, clock) -> Callable[[], Revision]:
    return Backup(repository, ("test",), clock=clock).run


def test_records_are_read_without_a_config(repository: Repository, back_up) -> None:
    revision = back_up()
    (repository.directory / "config").unlink()

    records = Records(repository.directory)
    assert records.history() == [revision]
    assert records.select("last") == records.read(revision.id) == records.current(revision) == revision
    assert records.read_map(revision).size == revision.size
    assert list(records.maps()) == [records.map_path(revision.id)]


def test_records_need_neither_a_repository_nor_plugins() -> None:
    above = "('backy.repository.repository', 'backy.plugins', 'pluggy')"
    program = f"import sys, backy.repository.records; print([name for name in sys.modules if name.startswith({above})])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_place_without_anything_has_no_records(tmp_path: Path) -> None:
    assert Records(tmp_path / "missing").survey() == ([], [])


def test_a_forgotten_revision_is_told_from_a_damaged_one(repository: Repository, back_up) -> None:
    revision = back_up()
    records = repository.records
    records.record_path(revision.id).chmod(0o600)
    records.record_path(revision.id).write_text("torn")
    with pytest.raises(DamageError, match=f"{revision.id}.rev is not a revision"):
        records.current(revision)

    records.record_path(revision.id).unlink()
    with pytest.raises(RevisionNotFoundError, match=f"{revision.id} was forgotten meanwhile"):
        records.current(revision)
    with pytest.raises(FileNotFoundError):
        records.read(revision.id)


def test_a_map_has_to_be_the_one_that_the_record_names(repository: Repository, back_up) -> None:
    revision = back_up()
    with pytest.raises(DamageError, match=rf"\.map is not the chunk map that {revision.id}\.rev names"):
        repository.records.read_map(msgspec.structs.replace(revision, size=revision.size + 1))


def test_an_image_is_opened_by_its_record_or_by_a_map_at_hand(repository: Repository, back_up) -> None:
    revision = back_up()
    with repository.open_image(revision) as image, repository.image(revision) as locked:
        assert image.chunk(0) == locked.chunk(0)
        chunks = image.chunks

    repository.records.map_path(revision.id).unlink()
    with repository.open_image(revision, chunks) as image:
        assert image.chunks is chunks
        image.chunk(0)
    with pytest.raises(DamageError, match="is missing"), repository.open_image(revision):
        pass
