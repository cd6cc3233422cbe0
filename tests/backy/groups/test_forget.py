from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from backy.answers.audit import audit
from backy.backup.backup import Backup
from backy.errors import DamageError, RepositoryBusyError, RevisionNotFoundError, UnreadError
from backy.groups.forget import forget, release
from backy.repository.repository import Repository
from backy.repository.revision import Birth
from backy.repository.running import begin
from backy.system.locking import BACKUP_LOCK, RECORDS_LOCK, exclusive
from backy.testing.memory import MemoryRepository, MemorySource
from tests.trash import content
from tests.unread import fail_to_read


@pytest.fixture
def back_up(repository: Repository, clock):
    """Make one revision with the given tags."""
    return lambda *tags: Backup(repository, tags or ("daily",), clock=clock).run()


class Keeper(MemorySource):
    """A source that remembers what it was told to keep, and whether the repository was locked meanwhile."""

    def __init__(self, repository: MemoryRepository) -> None:
        super().__init__(b"x")
        self.repository = repository
        self.kept: list[list[str]] = []

    def retain(self, revisions: Iterable[str]) -> None:
        with pytest.raises(RepositoryBusyError), exclusive(self.repository.directory, BACKUP_LOCK):
            pass
        self.kept.append(list(revisions))


@pytest.fixture
def keeper(backy_repository: MemoryRepository) -> Keeper:
    """The source of a repository with two revisions."""
    backy_repository.memory = Keeper(backy_repository)
    for _ in range(2):
        Backup(backy_repository, ("daily",)).run()
    return backy_repository.memory


def test_to_forget_is_to_remove_and_to_have_the_source_let_go(keeper: Keeper) -> None:
    old, new = keeper.repository.records.history()

    assert forget(keeper.repository, ["1"]) == [old.id]
    assert keeper.repository.records.history() == [new]
    assert keeper.kept == [[new.id]]


def test_what_is_not_there_is_not_forgotten(keeper: Keeper) -> None:
    with pytest.raises(RevisionNotFoundError, match="no revision 2"):
        forget(keeper.repository, ["2"])
    assert keeper.kept == []


def test_to_release_is_to_keep_nothing(keeper: Keeper) -> None:
    assert release(keeper.repository)
    assert keeper.kept == [[]]
    assert len(keeper.repository.records.history()) == 2


def test_a_source_that_keeps_nothing_releases_nothing(backy_repository: MemoryRepository) -> None:
    assert not release(backy_repository)


def test_nothing_is_forgotten_while_others_change_records_nor_released_while_a_backup_runs(keeper: Keeper) -> None:
    before = keeper.repository.records.history()
    with exclusive(keeper.repository.directory, RECORDS_LOCK), pytest.raises(RepositoryBusyError):
        forget(keeper.repository, ["0"])
    with exclusive(keeper.repository.directory, BACKUP_LOCK), pytest.raises(RepositoryBusyError):
        release(keeper.repository)
    assert keeper.repository.records.history() == before
    assert keeper.kept == []


def test_beside_a_backup_no_source_is_asked_and_what_the_backup_needs_stays(keeper: Keeper) -> None:
    repository = keeper.repository
    old, *_, new = repository.records.history()
    # as it is while a backup of a revision that builds upon the newest one runs
    facts = {name: getattr(new, name) for name in Birth.__struct_fields__}
    begin(repository.directory, Birth(**{**facts, "id": "being-made", "parent": new.id}))
    with exclusive(repository.directory, BACKUP_LOCK):
        for needed in ("last", new.id):
            with pytest.raises(RepositoryBusyError, match=f"the backup that runs needs {new.id}"):
                forget(repository, [old.id, needed], "test", force=True)
        assert repository.records.history()[0] == old
        assert forget(repository, [old.id], "test", force=True) == [old.id]
        assert keeper.kept == []
    assert old not in repository.records.history()
    # it was interrupted, so nothing needs the revision any more
    forget(repository, [new.id], "test", force=True)
    assert keeper.kept != []


def test_what_can_not_be_read_is_forgotten_by_force_and_its_full_id_only(
    repository: Repository, back_up, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, unread = [back_up("old")], back_up("disk")
    others += [back_up("new"), back_up("new")]
    before = repository.records.journal.read()
    with monkeypatch.context() as patch:
        fail_to_read(patch, f"{unread.id}.state")
        advice = (
            rf"can not be read: .*; it may be sound on another day; '-r {unread.id} --force --reason TEXT' removes it"
        )
        for specification, force in ((unread.id, False), (unread.id[:10], True), ("2", True), ("disk", True)):
            with pytest.raises(UnreadError, match=advice):
                forget(repository, [others[0].id, specification], "disk", force=force)
        assert repository.records.journal.read() == before, "and nothing was forgotten"
        assert forget(repository, [others[0].id, unread.id], "disk", force=True) == [others[0].id, unread.id]
    assert [one.id for one in repository.records.history()] == [one.id for one in others[1:]]
    assert [one.id for one in content(repository)] == [others[0].id], "nothing tells that the other is in the trash"
    assert not repository.records.holds(unread.id)
    assert audit(repository).findings == ()


def test_while_the_newest_record_is_damaged_revisions_are_forgotten_by_full_ids_only(
    repository: Repository, back_up
) -> None:
    good, damaged = back_up("old"), back_up("new")
    record = repository.directory / f"{damaged.id}.rev"
    record.unlink()
    record.write_bytes(b"{}")
    # what these stand for may be another revision than it was
    for specification in (
        "0",
        "last",
        "new",
        good.id[:10],
        "1",
        "old",
        "new",
        damaged.id[:10],
        "../../etc",
        "no-such-id",
    ):
        with pytest.raises(
            DamageError, match=f"the newest record {damaged.id} is damaged; -r {good.id} restores the state of"
        ):
            forget(repository, [specification])
    assert forget(repository, [damaged.id]) == [damaged.id]
    assert repository.records.survey() == ([good], [])
    assert (repository.directory / "last.rev").readlink() == Path(f"{good.id}.rev")
    assert not (repository.directory / f"{damaged.id}.map").exists()


def test_forget_removes_a_map_that_lost_its_record(repository: Repository, back_up) -> None:
    revision = back_up()
    (repository.directory / f"{revision.id}.rev").unlink()

    assert forget(repository, [revision.id]) == [revision.id]
    assert not list(repository.directory.glob("*.map"))
