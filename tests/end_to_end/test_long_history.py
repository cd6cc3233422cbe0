"""The time of a command must not be that of reading a long history several times over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.groups.forget import expire
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.retention.purge import purge
from backy.testing.clock import Clock

MANY = 30
FEW = 6
"""How many of a kind may be read whatever the length of the history."""


@pytest.fixture
def history(repository: Repository, image: Path, clock: Clock, old_revisions: Callable) -> list[Revision]:
    """Many revisions, the newest of which is a real one; the image changed since."""
    old_revisions(repository, {float(age): "test" for age in range(1, MANY)})
    Backup(repository, ("test",), clock=clock).run()
    with image.open("r+b") as stream:
        stream.write(b"new content")
    return repository.records.history()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], Counter[str]]:
    """Count what a function opens for reading, by the suffix of the file, as `read(function)`."""

    def count(function: Callable[[], object]) -> Counter[str]:
        found: Counter[str] = Counter()
        opening, listing = os.open, os.listdir

        def opened(path, flags, *rest, **named):
            found[Path(path).suffix] += not flags & (os.O_WRONLY | os.O_RDWR)
            return opening(path, flags, *rest, **named)

        def listed(path="."):
            found["listed"] += Path(path).name == "vm"
            return listing(path)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", opened)
            patch.setattr(os, "listdir", listed)
            function()
        return found

    return count


def test_a_backup_reads_every_record_once_and_few_maps(repository, history, clock, read) -> None:
    found = read(Backup(repository, ("test",), clock=clock).run)
    assert MANY <= found[".rev"] <= MANY + FEW
    assert MANY <= found[".state"] <= MANY + FEW
    assert found[".map"] <= FEW
    assert found["listed"] <= FEW
    assert len(repository.records.history()) == MANY + 1


def test_a_purge_reads_every_map_once_and_few_records(repository, history, read) -> None:
    assert history
    found = read(lambda: purge(repository))
    assert found[".rev"] <= FEW
    assert MANY <= found[".state"] <= MANY + FEW
    assert found[".map"] == MANY
    assert found["listed"] <= FEW


def test_expiry_reads_every_record_once(repository, history, clock, read) -> None:
    assert history
    found = read(lambda: expire(repository, clock))
    assert max(found[".rev"], found[".state"]) <= MANY + FEW
    assert found[".map"] == 0
