from __future__ import annotations

from pathlib import Path

from backy.repository.repository import Repository
from backy.system.locking import PURGE_LOCK, shared


def test_purge_says_what_it_freed(backy, repository: Repository, image: Path) -> None:
    assert backy("-b", repository.directory, "purge").out == "Purged: 0 files, 0 Bytes\n"
    backy("-b", repository.directory, "backup", "old")
    backy("-b", repository.directory, "forget", "-r", "old", "--force", "--reason", "a test")
    assert backy("-b", repository.directory, "purge").out == "Purged: 0 files, 0 Bytes\n"
    done = backy("-b", repository.directory, "purge", "--trash")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Purged: 3 files, 8.0 MiB")
    assert not list((repository.directory / "chunks").glob("??/*"))


def test_purge_ends_with_75_while_somebody_restores(backy, repository: Repository) -> None:
    with shared(repository.directory, PURGE_LOCK):
        done = backy("-b", repository.directory, "purge")

    assert (done.code, done.err.count("\n")) == (75, 1)
    assert "another backy command holds .purge" in done.err


def test_purge_refuses_while_a_map_is_damaged(backy, repository: Repository, tree) -> None:
    backy("-b", repository.directory, "backup", "daily")
    path = next(repository.directory.glob("*.map"))
    path.unlink()
    path.write_bytes(b"torn")
    before = tree(repository.directory / "chunks")
    done = backy("-b", repository.directory, "purge")

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"nothing is purged, as its chunks are not known: 'backy forget -r {path.stem}' first" in done.err
    assert tree(repository.directory / "chunks") == before
