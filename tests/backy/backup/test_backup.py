from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, Extent, Snapshot, SourceBusyError, SourceError, StorageError
from backy.backup.backup import Backup
from backy.errors import ExitCode, RepositoryBusyError, VerificationError
from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.system.locking import BACKUP_LOCK, exclusive


class Fickle:
    """A source whose bytes are others when they are read again, and stay like that."""

    verifier = "full"
    size = 20 * CHUNK_SIZE

    def __init__(self) -> None:
        self.read: set[int] = set()

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        yield self

    def extents(self) -> Iterable[Extent]:
        return [Extent(0, self.size, data=True)]

    def changes(self) -> None:
        """Tell nothing."""

    def pread(self, offset: int, length: int) -> bytes:
        again = offset in self.read
        self.read.add(offset)
        return offset.to_bytes(7, "big") + bytes([1 + again]) + bytes(length - 8)


def test_backup_makes_a_complete_verified_revision(repository: Repository, clock) -> None:
    revision = Backup(repository, ("daily",), clock=clock).run()

    assert repository.records.history() == [revision]
    assert str(revision.verification) == "verified"


def test_a_source_that_changes_while_it_is_read_gives_no_revision_but_evidence(
    repository: Repository, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Backup(repository, ("good",), clock=clock).run()
    monkeypatch.setattr(repository, "source", Fickle)

    with pytest.raises(VerificationError, match=r"20 chunks .* did the source change during the backup"):
        Backup(repository, ("bad",), clock=clock).run()

    assert repository.records.survey() == ([good], [])
    assert (repository.directory / "last.rev").readlink() == Path(f"{good.id}.rev")
    assert [path.name for path in repository.directory.glob("*.map")] == [f"{good.id}.map"]
    folders = list((repository.directory / "quarantine").iterdir())
    assert len(folders) == 16
    for folder in [repository.directory / "quarantine", *folders]:
        assert folder.stat().st_mode & 0o777 == 0o700
    for folder in folders:
        files = {path.name: path for path in folder.iterdir()}
        assert files.keys() == {"report.json", "source", "stored"}
        assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o400}
        assert files["source"].read_bytes()[8:] == files["stored"].read_bytes()[8:] == bytes(CHUNK_SIZE - 8)
        assert files["source"].read_bytes() != files["stored"].read_bytes()


def test_a_second_backup_does_not_start(repository: Repository) -> None:
    with exclusive(repository.directory, BACKUP_LOCK), pytest.raises(RepositoryBusyError, match="busy"):
        Backup(repository, ("daily",)).run()


class Taken:
    """A source that somebody else is backing up."""

    verifier = "full"

    def snapshot(self, revision_id: str, parent: str | None) -> AbstractContextManager[Snapshot]:
        raise SourceBusyError("source x is being backed up by another server")


def test_a_source_that_is_busy_is_no_failure_and_leaves_nothing(repository: Repository, tree, monkeypatch) -> None:
    Backup(repository, ("daily",)).run()
    before = tree(repository.directory)
    monkeypatch.setattr(repository, "source", Taken)
    told: list[str] = []
    events = Events()
    monkeypatch.setattr(events, "tell", lambda hook, **_arguments: told.append(hook))

    with pytest.raises(SourceBusyError) as raised:
        Backup(repository, ("daily",), events).run()
    assert raised.value.exit_code == ExitCode.BUSY
    assert told == []
    # a number is used once, even if nothing came of it
    assert {**tree(repository.directory), ".seq": None} == {**before, ".seq": None}


def test_a_backup_that_fails_leaves_the_repository_as_it_was(repository: Repository, image: Path, clock, tree) -> None:
    Backup(repository, ("good",), clock=clock).run()
    before = tree(repository.directory)
    image.unlink()

    with pytest.raises(SourceError, match="No such file"):
        Backup(repository, ("bad",), clock=clock).run()
    # a number is used once, even if nothing came of it
    assert {**tree(repository.directory), ".seq": None} == {**before, ".seq": None}


def test_a_source_that_shrinks_while_it_is_read_gives_no_revision(repository: Repository, image: Path, clock) -> None:
    repository.config.source["freeze"] = "off"
    shrink = iter([lambda: os.truncate(image, CHUNK_SIZE)])

    def steps(step: str, total: int):
        return lambda _length: next(shrink, lambda: None)()

    with pytest.raises(SourceError, match="shrank"):
        Backup(repository, ("daily",), clock=clock, steps=steps).run()
    assert repository.records.survey() == ([], [])


def test_a_trailing_hole_that_shrinks_while_it_is_verified_gives_no_revision(
    repository: Repository, image: Path, clock
) -> None:
    repository.config.source["freeze"] = "off"
    os.truncate(image, 0)
    os.truncate(image, 3 * CHUNK_SIZE)

    def steps(step: str, total: int):
        if step == "verify":
            os.truncate(image, CHUNK_SIZE)
        return lambda _length: None

    with pytest.raises(SourceError, match="shrank"):
        Backup(repository, ("daily",), clock=clock, steps=steps).run()
    assert repository.records.survey() == ([], [])


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE, 2 * CHUNK_SIZE + 7, 9 * CHUNK_SIZE])
def test_an_image_may_grow_and_shrink(repository: Repository, image: Path, clock, size: int) -> None:
    first = Backup(repository, ("one",), clock=clock).run()
    before = image.read_bytes()
    os.truncate(image, size)
    second = Backup(repository, ("two",), clock=clock).run()

    for revision, content in [(first, before), (second, image.read_bytes())]:
        with repository.image(revision) as stored:
            assert stored.pread(0, stored.size) == content
    assert second.parent == first.id


def test_a_clock_that_runs_back_changes_times_but_not_the_order(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    times = iter([datetime(2026, 1, 2, tzinfo=UTC) - timedelta(days=day) for day in range(40)])
    made = [Backup(repository, ("daily",), clock=lambda: next(times)).run() for _ in range(3)]

    assert repository.records.history() == made
    assert [revision.seq for revision in made] == [1, 2, 3]
    assert made[0].timestamp > made[1].timestamp > made[2].timestamp
    assert made[0].trusted_time <= made[1].trusted_time <= made[2].trusted_time
    assert caplog.text.count("the clock is behind the newest revision of 2026-01-02") == 2
    assert (repository.directory / "last.rev").readlink() == Path(f"{made[-1].id}.rev")


@pytest.mark.parametrize("counter", [None, b"", b"1\n", b"x"])
def test_a_lost_or_old_counter_does_no_harm(repository: Repository, clock, counter: bytes | None) -> None:
    made = [Backup(repository, ("daily",), clock=clock).run() for _ in range(2)]
    (repository.directory / ".seq").unlink()
    if counter is not None:
        (repository.directory / ".seq").write_bytes(counter)
    made.append(Backup(repository, ("daily",), clock=clock).run())

    assert [revision.seq for revision in made] == [1, 2, 3]


def test_the_number_of_a_removed_revision_is_not_used_again(repository: Repository, clock) -> None:
    removed = Backup(repository, ("daily",), clock=clock).run()
    repository.remove(removed.id)

    assert Backup(repository, ("daily",), clock=clock).run().seq == removed.seq + 1


def test_a_backup_that_runs_is_written_down_and_no_record(repository: Repository, clock, monkeypatch) -> None:
    seen: list[str] = []
    source = repository.source()

    class Watched:
        verifier = "full"

        @contextmanager
        def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
            seen.extend(path.name for path in repository.directory.glob(f"*{revision_id}*"))
            with source.snapshot(revision_id, parent) as snapshot:
                yield snapshot

    monkeypatch.setattr(repository, "source", Watched)
    revision = Backup(repository, ("daily",), clock=clock).run()

    assert seen == [f".{revision.id}.running"]
    left = {path.name for path in repository.directory.iterdir() if revision.id in path.name}
    assert left == {f"{revision.id}.{suffix}" for suffix in ("rev", "state", "map")}


def test_a_store_of_another_version_is_refused_by_name(repository: Repository) -> None:
    store = repository.directory / "chunks" / "store"
    store.unlink()
    store.write_bytes(b"v2")

    with pytest.raises(StorageError, match="store says b'v2'"):
        Backup(repository, ("daily",)).run()
    assert repository.records.survey() == ([], [])


def test_what_is_left_of_a_removed_revision_goes_at_the_next_backup(repository: Repository, clock) -> None:
    removed = Backup(repository, ("old",), clock=clock).run()
    (repository.directory / f"{removed.id}.rev").unlink()

    Backup(repository, ("new",), clock=clock).run()

    assert not list(repository.directory.glob(f"{removed.id}*"))
