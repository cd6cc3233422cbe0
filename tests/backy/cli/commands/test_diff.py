from __future__ import annotations

import json
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.repository.repository import Repository
from backy.repository.revision import Revision


@pytest.fixture(autouse=True)
def revisions(backy, repository: Repository, image: Path) -> list[Revision]:
    """Two revisions: a page is written in the second chunk, which was a hole, and one zeroed in the first."""
    assert backy("-b", repository.directory, "backup", "old").code == 0
    with image.open("r+b") as stream:
        stream.write(bytes(4096))
        stream.seek(CHUNK_SIZE + 8192)
        stream.write(b"changed")
    assert backy("-b", repository.directory, "backup", "new").code == 0
    return repository.records.history()


def test_ranges_and_their_sum_are_printed(backy, repository: Repository) -> None:
    done = backy("-b", repository.directory, "diff", "old", "new")

    assert (done.code, done.err) == (0, "")
    assert [line.split() for line in done.out.splitlines()] == [
        ["0", "4096", "zeroes"],
        [str(CHUNK_SIZE + 8192), "4096", "data"],
        ["8.0", "KiB", "in", "2", "ranges", "of", "2", "chunks", "changed"],
    ]


def test_scripts_get_an_object(backy, repository: Repository, revisions: list[Revision]) -> None:
    old, new = revisions
    found = json.loads(backy("-b", repository.directory, "diff", "1", "0", "--json").out)

    assert found == {
        "old": {"id": old.id, "size": old.size},
        "new": {"id": new.id, "size": new.size},
        "bytes": 8192,
        "chunks": 2,
        "damaged": 0,
        "extents": [
            {"offset": 0, "length": 4096, "data": False},
            {"offset": CHUNK_SIZE + 8192, "length": 4096, "data": True},
        ],
    }


def test_damage_is_told(backy, repository: Repository, revisions: list[Revision], spoil) -> None:
    spoil(repository, revisions[1], 1).unlink()
    done = backy("-b", repository.directory, "diff", "old", "new")

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"{CHUNK_SIZE:>16} {CHUNK_SIZE:>16} data\n" in done.out
    assert done.err.startswith("Error: 1 chunk can not be compared and counts as changed as a whole, the first: chunk ")
