from __future__ import annotations

import json

import pytest

from backy.api import CHUNK_SIZE
from backy.repository.repository import Repository
from backy.repository.revision import Revision


@pytest.fixture(autouse=True)
def revision(backy, repository: Repository) -> Revision:
    assert backy("-b", repository.directory, "backup", "daily").code == 0
    return repository.records.history()[0]


def test_a_restore_is_foreseen(backy, repository: Repository, revision: Revision) -> None:
    done = backy("-b", repository.directory, "plan", "restore", "-r", "daily")
    first, image, stored, estimate = done.out.splitlines()

    assert (done.code, done.err) == (0, "")
    assert first.startswith(f"Revision  {revision.id} of 20")
    assert image == "Image     16.0 MiB, of which 12.0 MiB are data"
    assert stored.startswith("Stored    12.0 MiB")
    assert estimate.startswith("Estimate  ")


def test_scripts_get_an_object(backy, repository: Repository, revision: Revision) -> None:
    found = json.loads(backy("-b", repository.directory, "plan", "restore", "--json").out)

    assert found.pop("seconds") > 0
    assert found.pop("stored") > found["data"]
    assert found == {"revision": revision.id, "size": revision.size, "data": 3 * CHUNK_SIZE + 1000, "damaged": []}


def test_what_can_not_be_restored_is_told(backy, repository: Repository, revision: Revision, spoil) -> None:
    for index in (0, 2, 4):
        spoil(repository, revision, index).unlink()
    done = backy("-b", repository.directory, "plan", "restore")

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "Error: 4 chunks can not be restored, the first is chunk" in done.err
    assert "Estimate" not in done.out
