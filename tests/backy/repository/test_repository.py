from __future__ import annotations

import os
import shutil
import stat
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

from backy.backup.backup import Backup
from backy.errors import DamageError, RepositoryBusyError, RepositoryError, StorageError
from backy.groups.forget import forget
from backy.integrity import quarantine
from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.revision import Birth, Revision
from backy.repository.running import begin
from backy.repository.sealed import FORMAT


@pytest.fixture
def back_up(repository: Repository, clock):
    """Make one revision with the given tags."""
    return lambda *tags: Backup(repository, tags or ("daily",), clock=clock).run()


def config(image: Path) -> JobConfig:
    return JobConfig(format=FORMAT, source=SourceSection({"type": "file", "filename": str(image)}))


def overwrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


class RawStorage:
    """Stands for a storage that keeps raw images, as far as links and removal go."""

    raw = True
    removed: list[str] = []  # noqa: RUF012  # one of a kind

    def remove(self, revision_id: str) -> None:
        self.removed.append(revision_id)


def test_a_change_of_config_or_of_reports_is_not_taken_for_a_backup(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(what: object, *_: object) -> None:
        with pytest.raises(RepositoryBusyError), Repository.open(repository.directory).changing():
            pass
        seen.append(type(what))

    (repository.directory / quarantine.FOLDER / "one").mkdir(parents=True)
    monkeypatch.setattr(Repository, "check_plugins", look)
    monkeypatch.setattr(shutil, "rmtree", look)
    quarantine.delete(repository.directory, None)
    repository.configure(config(tmp_path / "another"))
    assert seen == [type(tmp_path), Repository]


def test_what_init_made_can_be_opened(repository: Repository, image: Path) -> None:
    found = Repository.open(repository.directory)
    assert msgspec.structs.replace(found.config, id=None, created=None) == config(image)
    assert repository.job.name == "vm"
    assert repository.records.history() == []


def test_a_repository_keeps_its_id_when_it_is_moved(repository: Repository, tmp_path: Path) -> None:
    moved = Repository.open(repository.directory.rename(tmp_path / "elsewhere"))
    assert moved.job.id == repository.job.id
    assert len(moved.job.id) == 22


def test_init_makes_the_folders_above_and_nobody_else_may_read_them(tmp_path: Path, image: Path) -> None:
    directory = tmp_path / "srv" / "vm"
    Repository.initialize(directory, config(image))

    assert stat.S_IMODE(directory.stat().st_mode) == 0o750
    assert stat.S_IMODE((directory / "config").stat().st_mode) == 0o440


def test_init_leaves_a_repository_alone(repository: Repository, image: Path) -> None:
    before = (repository.directory / "config").read_bytes()

    with pytest.raises(RepositoryError, match="has a repository already"):
        Repository.initialize(repository.directory, config(image))
    assert (repository.directory / "config").read_bytes() == before


def test_init_can_bring_back_a_lost_config(repository: Repository, image: Path, back_up) -> None:
    revision = back_up()
    (repository.directory / "config").unlink()

    assert Repository.initialize(repository.directory, config(image)).records.history() == [revision]


def test_init_leaves_the_revisions_of_backy_2_alone(tmp_path: Path, image: Path) -> None:
    (tmp_path / "vm").mkdir()
    (tmp_path / "vm" / "KpXqR4vTn8sWzYb2Lm6HcD.rev").write_text("uuid: KpXqR4vTn8sWzYb2Lm6HcD\n")

    with pytest.raises(RepositoryError, match="revisions that this version can not read: KpXqR4vTn8sWzYb2Lm6HcD"):
        Repository.initialize(tmp_path / "vm", config(image))
    assert [path.name for path in (tmp_path / "vm").iterdir()] == ["KpXqR4vTn8sWzYb2Lm6HcD.rev"]


@pytest.mark.parametrize("place", ["nothing", "disk.img", "."])
def test_a_place_without_a_repository_is_named(tmp_path: Path, image: Path, place: str) -> None:
    with pytest.raises(RepositoryError, match="is no repository: it has no 'config'"):
        Repository.open(tmp_path / place)


def test_records_that_are_no_files_of_their_own_are_no_revisions(repository: Repository, back_up) -> None:
    revision = back_up()
    (repository.directory / f".{revision.id}.rev").write_bytes(b"left over")

    assert repository.records.survey() == ([revision], [])


def test_damaged_records_are_told_and_the_others_are_read(repository: Repository, back_up, caplog) -> None:
    first, second, third, fourth = (back_up() for _ in range(4))
    overwrite(repository.directory / f"{first.id}.rev", b"")
    overwrite(repository.directory / f"{second.id}.rev", b"uuid: x\n")
    (repository.directory / f"{third.id}.rev").unlink()
    (repository.directory / f"{third.id}.rev").mkdir()
    sound, damaged = repository.records.survey()

    assert sound == [fourth]
    assert all(any(str(error).startswith(f"{r.id}.rev ") for error in damaged) for r in (first, second, third))
    assert repository.records.history() == [fourth]
    assert first.id in caplog.text


def test_a_record_that_goes_while_it_is_listed_is_no_damage(
    repository: Repository, back_up, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = back_up(), back_up()
    read = repository.records.read

    def forgotten_meanwhile(identity: str) -> Revision:
        (repository.directory / f"{first.id}.rev").unlink(missing_ok=True)
        return read(identity)

    monkeypatch.setattr(repository.records, "read", forgotten_meanwhile)

    assert repository.records.survey()[1] == []
    assert second in repository.records.survey()[0]


def test_the_next_backup_removes_everything_unfinished(repository: Repository, back_up, image: Path) -> None:
    good = back_up()
    left = [f"{number}unfinished" for number in range(3)]
    for identity in left:
        begin(
            repository.directory,
            Birth(id=identity, seq=9, timestamp=good.timestamp, trusted_time=good.timestamp, birth_tags=()),
        )
        (repository.directory / f"{identity}.map").write_bytes(b"")
        (repository.directory / f"{identity}.state").write_bytes(b"")
    (repository.directory / ".config.tmp").write_bytes(b"")
    (repository.directory / "orphan00.map").write_bytes(b"")
    (repository.directory / "orphan01.state").write_bytes(b"")
    newest = back_up()

    assert repository.records.survey() == ([good, newest], [])
    assert {path.name for path in repository.directory.glob("*.map")} == {f"{good.id}.map", f"{newest.id}.map"}
    assert {path.stem for path in repository.directory.glob("*.state")} == {good.id, newest.id}
    assert not [*repository.directory.glob(".*.tmp"), *repository.directory.glob(".*.running")]


def test_a_damaged_record_does_not_stop_backups_and_its_map_is_kept(repository: Repository, back_up) -> None:
    damaged = back_up()
    overwrite(repository.directory / f"{damaged.id}.rev", b"{}")
    newest = back_up()

    assert repository.records.history() == [newest]
    assert (repository.directory / f"{damaged.id}.map").exists()


def test_last_rev_leads_to_the_newest_complete_revision(repository: Repository, back_up) -> None:
    link = repository.directory / "last.rev"
    first, second = back_up(), back_up()
    assert link.readlink() == Path(f"{second.id}.rev")
    assert not (repository.directory / "last").is_symlink()

    forget(repository, [second.id], "a test", force=True)
    assert link.readlink() == Path(f"{first.id}.rev")
    forget(repository, [first.id], "a test", force=True)
    assert not link.is_symlink()


def test_last_leads_to_a_raw_image_only(repository: Repository, back_up) -> None:
    revision = back_up()
    chunked = repository.storage()
    repository.storages._made["chunks"] = RawStorage()
    repository.link_last()
    assert (repository.directory / "last").readlink() == Path(revision.id)

    repository.storages._made["chunks"] = chunked
    repository.link_last()
    assert not (repository.directory / "last").is_symlink()


def test_only_a_storage_of_raw_images_has_a_path_to_them(repository: Repository, back_up) -> None:
    revision = back_up()
    assert repository.raw_path(revision) is None

    repository.storages._made["chunks"] = RawStorage()
    path = repository.directory / revision.id
    with pytest.raises(DamageError, match=f"the raw image {path} is missing"):
        repository.raw_path(revision)
    path.write_bytes(b"raw")
    with pytest.raises(DamageError, match=f"the raw image {path} has 3 bytes instead of {revision.size}"):
        repository.raw_path(revision)
    os.truncate(path, revision.size)
    assert repository.raw_path(revision) == path


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda path, _: path.unlink(), "is missing: revision .* can not be read"),
        (lambda path, _: overwrite(path, path.read_bytes()[:-1]), "is damaged: .* bytes instead of"),
        (lambda path, _: overwrite(path, b'{"mapping": {}, "size": 0}' + b" " * 64), "not a chunk map of backy 3"),
        (lambda path, other: overwrite(path, other.read_bytes()), "is not the chunk map that"),
        (lambda path, _: (path.unlink(), path.mkdir()), "can not be read: it is no regular file"),
    ],
    ids=["missing", "cut", "of backy 2", "another revision's", "a directory"],
)
def test_a_map_that_is_not_sound_is_refused_by_name(
    repository: Repository, back_up, image: Path, spoil, cause: str
) -> None:
    revision = back_up()
    with image.open("r+b") as stream:
        stream.write(b"changed")
    other = back_up()
    spoil(repository.records.map_path(revision.id), repository.records.map_path(other.id))

    with pytest.raises(DamageError, match=rf"{revision.id}\.map.*{cause}"):
        repository.records.read_map(revision)
    assert back_up()


def test_an_image_reads_as_the_source_did(repository: Repository, back_up, image: Path) -> None:
    opened: AbstractContextManager = repository.image(back_up())
    with opened as stored:
        assert stored.pread(0, stored.size) == image.read_bytes()


def test_init_leaves_a_chunk_store_of_another_version_alone(tmp_path: Path, image: Path) -> None:
    store = tmp_path / "vm" / "chunks" / "store"
    store.parent.mkdir(parents=True)
    store.write_bytes(b"v2")

    with pytest.raises(StorageError, match="says b'v2'"):
        Repository.initialize(tmp_path / "vm", config(image))
    assert store.read_bytes() == b"v2"
    assert not (tmp_path / "vm" / "config").exists()
