"""Records that a storage keeps are made like those in the directory, and the other way round."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.errors import RepositoryBusyError, RevisionNotFoundError, StorageError
from backy.groups.forget import forget, undelete
from backy.integrity.damage import Judge, distrust
from backy.integrity.seen import doubt
from backy.making.making import rebuild_repository
from backy.repository.repository import Repository
from backy.repository.revision import Trust
from backy.retention.purge import purge
from backy.retention.tags import set_tags
from backy.system.locking import BACKUP_LOCK, exclusive
from backy.testing.laboratory import Laboratory, patterned
from tests.keeper import Keeper, install

CHUNKS = "chunks"


@pytest.fixture
def kept() -> dict[str, bytes]:
    return {}


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def laboratory(
    tmp_path: Path, clock: Callable, monkeypatch: pytest.MonkeyPatch, kept: dict[str, bytes], calls: list[str]
) -> Laboratory:
    """A repository with two revisions, whose records are kept."""
    install(monkeypatch, kept, calls)
    laboratory = Laboratory(tmp_path / "vm", clock, {"type": "keeper", "name": CHUNKS, "token": "canary"})
    laboratory.initialize()
    for number in range(2):
        laboratory.content = patterned(0, number) + patterned(100)
        laboratory.backup()
    return laboratory


def files(directory: Path) -> dict[str, bytes]:
    suffixes = {".map", ".rev", ".state"}
    paths = [path for path in directory.iterdir() if path.suffix in suffixes and not path.is_symlink()]
    return {path.name: path.read_bytes() for path in paths}


def test_a_record_is_published_last_and_withdrawn_first(laboratory: Laboratory, kept, calls: list[str]) -> None:
    new = laboratory.backup().id
    assert calls[-3:] == [f"publish {new}.map", f"publish {new}.state", f"publish {new}.rev"]
    calls.clear()
    laboratory.forget(new)
    laboratory.purge()
    assert calls == ["publish seq", f"withdraw {new}.rev", f"withdraw {new}.state", f"withdraw {new}.map", "purge"]
    assert set(kept) == {*files(laboratory.directory), "config", "README", "seq"}


def test_the_published_config_has_no_secret_and_no_source(laboratory: Laboratory, kept: dict[str, bytes]) -> None:
    assert b"canary" not in b"".join(kept.values())
    assert b"source" not in kept["config"]
    assert laboratory.open().config.id.encode() in kept["config"]


def test_a_changed_state_is_published_and_the_next_command_catches_up(laboratory: Laboratory, kept) -> None:
    repository = laboratory.open()
    changed = set_tags(repository, "0", ["manual:x"]).id
    assert b"manual:x" in kept[f"{changed}.state"]
    # without the lock, nothing is published
    repository.records.write_state(repository.records.read(changed).changed(tags=("manual:y",)))
    set_tags(repository, "1", ["manual:z"])
    assert b"manual:y" in kept[f"{changed}.state"]


def test_what_is_missing_on_one_side_comes_from_the_other(laboratory: Laboratory, kept: dict[str, bytes]) -> None:
    before, published = files(laboratory.directory), dict(kept)
    for name in before:
        (laboratory.directory / name).unlink()
    purge(laboratory.open())
    assert files(laboratory.directory) == before
    kept.clear()
    purge(laboratory.open())
    assert kept == published


def test_what_an_interrupted_command_left_there_is_withdrawn(laboratory: Laboratory, kept: dict[str, bytes]) -> None:
    kept["interrupted.map"] = kept["interrupted.state"] = b""
    kept["../elsewhere.rev"] = b""
    purge(laboratory.open())
    assert "interrupted.map" not in kept
    assert not (laboratory.directory.parent / "elsewhere.rev").exists()


@pytest.mark.parametrize("suffix", [".rev", ".map"])
def test_nothing_is_purged_if_one_is_damaged_there_and_lost_here(laboratory, kept, calls, suffix: str) -> None:
    lost = next(name for name in kept if name.endswith(suffix)).removesuffix(suffix)
    kept[lost + suffix] = b"torn"
    for name in files(laboratory.directory):
        if name.startswith(lost):
            (laboratory.directory / name).unlink()
    calls.clear()
    with pytest.raises(Exception, match=r"3|damaged|map"):
        purge(laboratory.open())
    assert "purge" not in calls
    # others go on
    assert laboratory.backup()


def test_nothing_happens_when_the_list_can_not_be_had(laboratory: Laboratory, kept, calls: list[str]) -> None:
    kept["unreachable"] = b""
    before = files(laboratory.directory)
    calls.clear()
    for command in (
        purge,
        lambda repository: forget(repository, ["0"], "a test", force=True),
        lambda repository: set_tags(repository, "0", []),
    ):
        with pytest.raises(StorageError, match="can not be had"):
            command(laboratory.open())
    assert calls == []
    assert files(laboratory.directory) == before


def test_a_forgotten_revision_does_not_come_back(laboratory: Laboratory, kept: dict[str, bytes]) -> None:
    revision_id = forget(laboratory.open(), ["0"], "a test", force=True)[0]
    laboratory.backup()
    with pytest.raises(RevisionNotFoundError):
        laboratory.open().records.select(revision_id)
    assert f"{revision_id}.rev" not in kept


def test_what_is_in_the_trash_is_withdrawn_and_published_again_when_it_comes_back(
    laboratory: Laboratory, kept: dict[str, bytes]
) -> None:
    (revision_id,) = forget(laboratory.open(), ["0"], "a test", force=True)
    assert [name for name in kept if name.startswith(revision_id)] == []
    laboratory.backup()
    assert [name for name in kept if name.startswith(revision_id)] == []
    undelete(laboratory.open(), revision_id)
    assert kept.keys() >= {f"{revision_id}.{kind}" for kind in ("rev", "state", "map")}
    assert laboratory.open().records.select("manual:undeleted").id == revision_id


@pytest.fixture
def rebuilt(laboratory: Laboratory, tmp_path: Path, kept: dict[str, bytes]) -> Callable[[], Repository]:
    """Make the directory anew, of what is published and the chunks, while the old one is elsewhere."""

    def rebuild() -> Repository:
        old = laboratory.directory.rename(tmp_path / "old")
        shutil.copytree(old / CHUNKS, laboratory.directory / CHUNKS)
        return rebuild_repository(laboratory.directory, "keeper", {"storage": {"name": CHUNKS}})

    return rebuild


def test_a_rebuilt_repository_has_everything(laboratory: Laboratory, rebuilt, kept, calls: list[str]) -> None:
    before, published = files(laboratory.directory), dict(kept)
    calls.clear()
    laboratory.read_back(rebuilt(), {name.partition(".")[0] for name in before})
    assert files(laboratory.directory) == before
    assert (kept, calls) == (published, [])


def test_who_rebuilds_withdraws_nothing_of_a_backup_that_runs(laboratory: Laboratory, rebuilt, kept) -> None:
    newest = laboratory.open().records.history()[-1]
    record = kept.pop(f"{newest.id}.rev")
    repository = rebuilt()
    assert {f"{newest.id}.map", f"{newest.id}.state"} <= kept.keys()
    set_tags(repository, "last", ["manual:x"])
    assert {f"{newest.id}.map", f"{newest.id}.state"} <= kept.keys()
    kept[f"{newest.id}.rev"] = record
    set_tags(repository, "last", ["manual:y"])
    laboratory.read_back(repository, {newest.id})


def test_no_number_of_a_forgotten_revision_is_used_again(laboratory: Laboratory, rebuilt) -> None:
    number = laboratory.open().records.history()[-1].seq
    forget(laboratory.open(), ["last"], "a test", force=True)
    rebuilt()
    assert laboratory.backup().seq == number + 1


@pytest.mark.parametrize("content", [b"torn", b"", b"7\n8"])
def test_a_published_number_that_is_none_is_told_and_stops_nobody(
    laboratory: Laboratory, kept, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    kept["seq"] = content
    assert laboratory.backup()
    assert "the number of the last revision may be used once more" in caplog.text


def test_the_lock_is_held_while_a_repository_is_made(laboratory: Laboratory, rebuilt, monkeypatch) -> None:
    def noted(self) -> dict[str, str]:
        if (laboratory.directory / BACKUP_LOCK).exists():
            with pytest.raises(RepositoryBusyError), exclusive(laboratory.directory, BACKUP_LOCK):
                pass
            locked.append(True)
        return published(self)

    locked: list[bool] = []
    published = Keeper.published
    monkeypatch.setattr(Keeper, "published", noted)
    rebuilt()
    assert locked, "not only before, to read the published config"


def test_doubt_that_only_the_store_knows_comes_back(laboratory: Laboratory, kept: dict[str, bytes]) -> None:
    repository = laboratory.open()
    old = files(laboratory.directory)
    first, second = repository.records.history()
    distrust(repository, first.id)
    set_tags(repository, second.id, ["manual:there"])
    # as if the directory came back from a snapshot of its file system
    for name in (f"{first.id}.state", f"{second.id}.state"):
        (laboratory.directory / name).unlink()
        (laboratory.directory / name).write_bytes(old[name])

    set_tags(repository, second.id, ["manual:here"])

    one, other = repository.records.history()
    assert (one.trust, one.tags) == (Trust.DISTRUSTED, first.tags)
    assert (other.trust, other.tags) == (Trust.TRUSTED, ("manual:here",))
    assert kept[f"{first.id}.state"] == (laboratory.directory / f"{first.id}.state").read_bytes()


def test_a_published_state_that_is_older_than_a_doubt_does_not_lift_it(laboratory: Laboratory, kept) -> None:
    repository = laboratory.open()
    first, second = repository.records.history()
    set_tags(repository, second.id, ["manual:there"])
    old = dict(kept)
    assert doubt(repository, [0], lambda _: first.seq, second.timestamp) == [second.id]
    kept.update(old)
    (laboratory.directory / f"{second.id}.state").unlink()
    (laboratory.directory / f"{first.id}.state").unlink()
    repository.reconcile()
    one, other = repository.records.history()
    assert (one.state_problem, one.trust) == (None, Trust.TRUSTED)
    assert (other.state_problem, other.tags) == (None, ("manual:there",))
    assert other.state.wrong


def test_what_was_read_and_is_sound_stays_trusted_here_and_there(laboratory: Laboratory, kept) -> None:
    repository = laboratory.open()
    distrust(repository, "last")
    revision = Judge(repository).verify(repository.records.select("last"))
    set_tags(repository, "last", ["manual:x"])
    assert repository.records.read(revision.id).trust is Trust.VERIFIED
    assert b'"distrusted": false' in kept[f"{revision.id}.state"]


def test_two_repositories_do_not_share_a_store(laboratory: Laboratory, clock: Callable, tmp_path: Path) -> None:
    second = Laboratory(tmp_path / "second", clock, {"type": "keeper", "name": CHUNKS})
    with pytest.raises(StorageError, match="the records of another repository"):
        second.initialize()
    shutil.rmtree(tmp_path / "second")


@pytest.mark.parametrize("suffix", [".state", ".map"])
def test_what_is_damaged_there_and_lost_here_is_no_reason_to_give_up_the_rest(
    laboratory: Laboratory, kept: dict[str, bytes], suffix: str
) -> None:
    """A record is lost here; its state, or its map of which there is one here, is damaged there."""
    lost = laboratory.open().records.history()[0]
    kept[lost.id + suffix] = b"damaged"
    (laboratory.directory / f"{lost.id}.rev").unlink()
    if suffix == ".state":
        (laboratory.directory / f"{lost.id}.state").unlink()
        (laboratory.directory / f"{lost.id}.map").unlink()

    laboratory.backup()

    found = laboratory.open().records.read(lost.id)
    assert found.record == lost.record
    laboratory.read_back(laboratory.open(), {lost.id})
    assert f"{lost.id}.rev" in kept


def test_what_is_published_and_can_not_be_fetched_is_not_cleaned_up(laboratory: Laboratory, kept) -> None:
    lost = laboratory.open().records.history()[0]
    (laboratory.directory / f"{lost.id}.rev").unlink()
    (laboratory.directory / f"{lost.id}.map").unlink()
    sound, kept[f"{lost.id}.map"] = kept[f"{lost.id}.map"], b"damaged"

    laboratory.backup()
    assert f"{lost.id}.rev" in kept

    kept[f"{lost.id}.map"] = sound
    laboratory.backup()
    laboratory.read_back(laboratory.open(), {lost.id})


def test_a_backup_that_is_complete_but_not_published_is_no_failure(
    laboratory: Laboratory, kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self, name: str, content: bytes) -> None:
        if name.endswith(".rev"):
            raise StorageError("no more space there")
        publish(self, name, content)

    publish = Keeper.publish
    monkeypatch.setattr(Keeper, "publish", refuse)
    laboratory.backup()
    revision = laboratory.open().records.history()[-1]
    assert "can not be published; the next command does it: no more space there" in caplog.text
    assert f"{revision.id}.rev" not in kept

    monkeypatch.setattr(Keeper, "publish", publish)
    laboratory.backup()
    assert f"{revision.id}.rev" in kept


def test_a_readme_that_is_gone_is_made_again(laboratory: Laboratory) -> None:
    (laboratory.directory / "README").unlink()
    laboratory.backup()
    assert (laboratory.directory / "README").exists()
