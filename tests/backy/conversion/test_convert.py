"""Repositories between storages: what was converted is what it was, and all can be used at any time."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE
from backy.backup.backup import Backup
from backy.conversion.convert import Conversion
from backy.errors import DamageError, RepositoryBusyError, StorageError
from backy.making.making import rebuild_repository
from backy.repository.config import StorageSection
from backy.repository.revision import Revision, Trust
from backy.retention.purge import purge
from backy.scrubbing.scrub import Scrub
from backy.system.progress import quiet
from backy.testing.crashes import crashes, distinct
from backy.testing.laboratory import KINDS, Laboratory, patterned
from backy.testing.recording import Fault
from backy.testing.tree import Tree
from tests.keeper import Keeper, install

COUNT = 4
OTHER = {"chunked": "cow", "cow": "chunked"}
LOCKS = {".backup", ".purge", ".records"}
COMMON = {"config", "README", "restore.py", "audit.py", ".compared", ".seq", "journal", "last.rev", *LOCKS}


@pytest.fixture
def folder(mount: Callable) -> Path:
    return mount("btrfs")


@pytest.fixture(params=OTHER)
def laboratory(request: pytest.FixtureRequest, folder: Path, clock: Callable) -> Laboratory:
    """Four revisions by either storage."""
    return make(Laboratory(folder / "vm", clock, {"type": request.param}))


def make(made: Laboratory) -> Laboratory:
    """Make revisions of an image in which pages, chunks and the size change."""
    made.content = patterned(0) + bytes(CHUNK_SIZE) + patterned(100) + bytes(range(250)) * 20
    made.initialize()
    for number in range(COUNT):
        made.backup()
        made.content = patterned(0, number) + made.content[CHUNK_SIZE:] + patterned(number, 3)
        if number == 1:
            made.content = made.content[: 2 * CHUNK_SIZE] + bytes(CHUNK_SIZE)
    return made


def convert(laboratory: Laboratory, name: str | None = None) -> list[str]:
    """Convert to the other storage and return the ids of what was converted."""
    return [*Conversion(laboratory.open(), name or OTHER[laboratory.storage["type"]]).run().stored]


def kinds(laboratory: Laboratory) -> list[str]:
    """Return the type of the storage of each revision, the oldest first."""
    repository = laboratory.open()
    sections = {repository.storages.identity_of(section): section.type for section in repository.config.storages}
    return [sections[revision.storage] for revision in repository.records.history()]


def stored(revision: Revision) -> Revision:
    """What has to stay as it is."""
    return revision.changed(storage="")


def check_files(laboratory: Laboratory, name: str) -> None:
    """All is there that a repository of the storage has, and nothing else."""
    ids = {revision.id for revision in laboratory.open().records.history()}
    expected = COMMON | {f"{identity}.{suffix}" for identity in ids for suffix in ("map", "rev", "state")}
    expected |= {"cow": {*ids, "last", "cow"}, "chunked": {"chunks"}}[name]
    assert {path.name for path in laboratory.directory.iterdir()} - {".scrub", "quarantine"} == expected
    assert laboratory.open().config.storage.type == name
    assert laboratory.open().config.earlier_storages == ()


@pytest.mark.parametrize("kind", ["btrfs", "btrfs zstd", "xfs"])
@pytest.mark.parametrize("old", OTHER)
def test_all_but_the_storage_stays_as_it_is(mount: Callable, clock: Callable, kind: str, old: str) -> None:
    laboratory = make(Laboratory(mount(kind) / "vm", clock, {"type": old}))
    before = laboratory.open().records.history()
    for name in (OTHER[old], old):
        assert convert(laboratory, name) == [revision.id for revision in reversed(before)]

        after = laboratory.open().records.history()
        assert [stored(revision) for revision in after] == [stored(revision) for revision in before]
        assert set(kinds(laboratory)) == {name}
        laboratory.read_back(laboratory.open(), {revision.id for revision in after})
        check_files(laboratory, name)
        assert Scrub(laboratory.open(), deep=True, clock=laboratory.clock).run().damaged == []
        laboratory.nothing_left_over()
    assert laboratory.backup().parent == before[-1].id


def test_copies_share_what_the_originals_share(folder: Path, clock: Callable) -> None:
    for old, new in OTHER.items():
        laboratory = Laboratory(folder / old, clock, {"type": old})
        laboratory.initialize()
        for number in range(3):
            laboratory.content = patterned(0, number) + patterned(100)
            laboratory.backup()
        done = Conversion(laboratory.open(), new).run()
        stored = [done.stored[revision.id] for revision in laboratory.open().records.history()]
        assert stored[2] >= {"cow": 2 * CHUNK_SIZE, "chunked": 2 * KINDS * PAGE_SIZE}[new]
        assert max(stored[:2]) <= 2 * PAGE_SIZE + 100


def test_records_that_are_kept_elsewhere_go_with_their_data(
    tmp_path: Path, clock: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, bytes] = {}
    calls: list[str] = []
    install(monkeypatch, kept, calls)
    laboratory = make(Laboratory(tmp_path / "vm", clock, {"type": "chunked"}))
    ids = [revision.id for revision in laboratory.open().records.history()]
    records = {f"{one}.{suffix}" for one in ids for suffix in ("map", "state", "rev")}

    Conversion(laboratory.open(), "keeper", {"name": "far"}).run()
    assert set(kept) == {*records, "config", "README"}
    laboratory.read_back(laboratory.open(), set(ids))
    laboratory.directory.rename(tmp_path / "lost")
    shutil.copytree(tmp_path / "lost/far", laboratory.directory / "far")
    rebuild_repository(laboratory.directory, "keeper", {"storage": {"name": "far"}})
    laboratory.read_back(laboratory.open(), set(ids))

    calls.clear()
    Conversion(laboratory.open(), "chunked", {"name": "near"}).run()
    assert records.isdisjoint(kept)
    withdrawn = [call.removeprefix("withdraw ") for call in calls if call.startswith("withdraw")]
    assert withdrawn == [f"{one}.{suffix}" for one in reversed(ids) for suffix in ("rev", "state", "map")]
    assert calls[-1] == "dispose"
    assert not (laboratory.directory / "far").exists()
    laboratory.read_back(laboratory.open(), set(ids))
    laboratory.backup()


def test_records_there_are_whole_when_a_conversion_to_it_is_interrupted(
    tmp_path: Path, clock: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, bytes] = {}
    install(monkeypatch, kept, [])
    laboratory = make(Laboratory(tmp_path / "vm", clock, {"type": "chunked"}))
    ids = {revision.id for revision in laboratory.open().records.history()}
    publish = Keeper.publish
    for refused in range(1, 100):
        count = iter(range(refused))

        def fail(self, name: str, content: bytes) -> None:
            if next(count, None) is None:  # noqa: B023  # called at once
                raise StorageError("no space there")
            publish(self, name, content)

        monkeypatch.setattr(Keeper, "publish", fail)
        try:
            Conversion(laboratory.open(), "keeper", {"name": "far"}).run()
            break
        except StorageError:
            for name in [name for name in kept if name.endswith(".rev")]:
                assert {name, name.replace(".rev", ".map"), name.replace(".rev", ".state")} <= kept.keys()
    assert refused > 3, "each attempt gets further, and the first ones not to the end"
    laboratory.read_back(laboratory.open(), ids)
    assert {name.removesuffix(".rev") for name in kept if name.endswith(".rev")} == ids


def test_to_convert_once_more_does_nothing(laboratory: Laboratory) -> None:
    convert(laboratory)
    before = Tree.read(laboratory.directory)
    assert convert(laboratory) == []
    assert not before.differences(Tree.read(laboratory.directory))


def test_an_empty_repository_gets_another_storage(folder: Path, clock: Callable) -> None:
    laboratory = Laboratory(folder / "vm", clock, {"type": "chunked", "compression": 3})
    laboratory.initialize()
    assert convert(laboratory) == []
    files = {path.name for path in laboratory.directory.iterdir()}
    assert files == {"config", "README", "restore.py", "audit.py", "cow", "journal", *LOCKS}
    laboratory.backup()
    assert (laboratory.directory / "last").exists()


def test_trust_is_kept(laboratory: Laboratory, clock: Callable) -> None:
    repository = laboratory.open()
    wanted = [Trust.DISTRUSTED, Trust.VERIFIED, Trust.TRUSTED, Trust.DISTRUSTED]
    for revision, trust in zip(repository.records.history(), wanted, strict=True):
        verified = clock() if trust is Trust.VERIFIED else None
        repository.records.write_state(revision.changed(distrusted=trust is Trust.DISTRUSTED, verified=verified))
    convert(laboratory)
    assert [revision.trust for revision in laboratory.open().records.history()] == wanted


class KilledError(Exception):
    """Stands for whatever ends a process."""


def killing_at(number: int) -> Callable[[str, int], Callable[[int], None]]:
    """Return steps that end everything when something is read back for the given time."""
    checks = []

    def steps(name: str, total: int) -> Callable[[int], None]:
        checks.append(name)
        if checks.count("verify") >= number:
            raise KilledError
        return quiet(name, total)

    return steps


def convert_partly(laboratory: Laboratory, revisions: int) -> None:
    """Convert some revisions; end when the copy of the next one is to be read back."""
    with pytest.raises(KilledError):
        Conversion(laboratory.open(), OTHER[laboratory.storage["type"]], steps=killing_at(revisions + 1)).run()


@pytest.mark.parametrize("done", [0, 2, COUNT - 1])
def test_a_repository_works_between_storages(laboratory: Laboratory, backy: Callable, done: int, tmp_path) -> None:
    convert_partly(laboratory, done)
    repository = laboratory.open()
    old, new = laboratory.storage["type"], OTHER[laboratory.storage["type"]]
    assert [section.type for section in repository.config.storages] == [new, old]
    history = repository.records.history()
    assert kinds(laboratory) == [old] * (COUNT - done) + [new] * done

    for number, kind in enumerate(reversed(kinds(laboratory))):
        found = backy("-b", laboratory.directory, "find", "-r", number)
        assert (found.code == 0) == (kind == "cow")
        assert backy("-b", laboratory.directory, "restore", "--force", "-r", number, tmp_path / "target").code == 0
        assert backy("-b", laboratory.directory, "verify", "-r", number).code == 0
    last = laboratory.directory / "last"
    assert (last.is_symlink() and last.resolve().name == history[-1].id) == (kinds(laboratory)[-1] == "cow")
    for mode in ("light", "deep"):
        scrub = backy("-b", laboratory.directory, "scrub", mode)
        assert (scrub.code, scrub.err) == (0, "")
    assert backy("-b", laboratory.directory, "status").code == 0
    purge(repository)
    laboratory.check(laboratory.state(0))

    revision = laboratory.open().records.history()[-1]
    assert (kinds(laboratory)[-1], revision.parent) == (new, history[-1].id if done else None)
    laboratory.forget("1")
    laboratory.purge()
    assert len(convert(laboratory)) == COUNT - max(done, 1)
    check_files(laboratory, new)
    laboratory.check(laboratory.state(0))


def test_what_was_begun_can_be_turned_back(laboratory: Laboratory) -> None:
    section = laboratory.open().config.storage
    convert_partly(laboratory, 2)
    assert len(convert(laboratory, laboratory.storage["type"])) == 2
    check_files(laboratory, laboratory.storage["type"])
    assert laboratory.open().config.storage == section
    laboratory.check(laboratory.state(0))


def test_a_storage_that_was_edited_into_config_is_converted_to_as_well(laboratory: Laboratory) -> None:
    repository = laboratory.open()
    new = OTHER[laboratory.storage["type"]]
    repository.configure(msgspec.structs.replace(repository.config, storage=StorageSection.named(new)))
    assert len(convert(laboratory)) == COUNT
    check_files(laboratory, new)


@pytest.mark.parametrize("partly", [True, False])
def test_purge_works_after_a_conversion_that_ended_while_it_disposed(laboratory: Laboratory, partly: bool) -> None:
    convert(laboratory)
    repository = laboratory.open()
    old = laboratory.storage["type"]
    if partly and old == "chunked":
        (laboratory.directory / "chunks/00").mkdir(parents=True)
        (laboratory.directory / "chunks/00/dead").touch()
    repository.write_config(msgspec.structs.replace(repository.config, earlier_storages=(StorageSection.named(old),)))
    assert purge(repository).files == 0
    convert(laboratory)
    check_files(laboratory, OTHER[old])
    laboratory.check(laboratory.state(0))


def test_two_storages_are_left_for_a_third_one_of_the_same_type(laboratory: Laboratory) -> None:
    convert_partly(laboratory, 1)
    before = laboratory.open().records.history()
    assert len({revision.storage for revision in before}) == 2
    Conversion(laboratory.open(), "chunked", {"name": "more", "compression": 3}).run()
    config = laboratory.open().config
    assert config.storage == {"type": "chunked", "name": "more", "compression": 3}
    assert config.earlier_storages == ()
    after = laboratory.open().records.history()
    assert len({revision.storage for revision in after}) == 1
    assert not {revision.storage for revision in after} & {revision.storage for revision in before}
    assert not [name for name in ("chunks", "cow", *(r.id for r in before)) if (laboratory.directory / name).exists()]
    laboratory.check(laboratory.state(0))


def test_every_chunk_is_read_from_the_new_storage_before_the_old_one_is_given_up(laboratory: Laboratory) -> None:
    if laboratory.storage["type"] == "cow":
        convert(laboratory)
    with pytest.raises(KilledError):
        Conversion(laboratory.open(), "chunked", {"name": "more"}, steps=killing_at(COUNT)).run()
    repository = laboratory.open()
    identity = repository.storages.identity
    newest = repository.records.history()[-1]
    assert newest.storage == identity
    chunk_id = repository.records.read_map(newest)[0].hex()
    next(laboratory.directory.glob(f"more/??/{chunk_id}.*")).unlink()

    done = Conversion(laboratory.open(), "chunked", {"name": "more"}).run()
    assert newest.id in done.failed  # and those whose chunks are made of the same one
    assert (laboratory.directory / "chunks/store").exists()
    assert [section.folder for section in laboratory.open().config.earlier_storages] == ["chunks"]


def test_who_reads_is_waited_for_with_old_data(laboratory: Laboratory) -> None:
    for number in (0, COUNT - 1):
        revision = laboratory.open().records.history()[number]
        with laboratory.open().image(revision) as image:
            with pytest.raises(RepositoryBusyError, match=r"another backy command holds \.purge"):
                convert(laboratory)
            assert all(len(image.chunk(index)) == image.chunks.length(index) for index in range(len(image.chunks)))
    assert set(kinds(laboratory)) == {OTHER[laboratory.storage["type"]]}
    convert(laboratory)
    check_files(laboratory, OTHER[laboratory.storage["type"]])


def test_a_revision_converted_since_it_was_chosen_is_read_from_where_it_is(laboratory: Laboratory) -> None:
    repository = laboratory.open()
    chosen = repository.records.history()
    convert(laboratory)
    laboratory.read_back(repository, {revision.id for revision in chosen})
    for revision in chosen:
        with repository.image(revision) as image:
            assert len(image.chunk(0)) == CHUNK_SIZE
        assert Scrub(repository, deep=True, clock=laboratory.clock, only=revision).run().damaged == []


def test_a_backup_in_progress_is_told_at_once(laboratory: Laboratory, backy: Callable) -> None:
    laboratory.content = b"changed"
    codes = []

    def steps(name: str, total: int) -> Callable[[int], None]:
        codes.append(backy("-b", laboratory.directory, "convert", "--storage", "chunked").code)
        return quiet(name, total)

    Backup(laboratory.open(), ("daily",), clock=laboratory.clock, steps=steps).run()
    assert set(codes) == {75}


# what can not be converted --------------------------------------------------------------------------------------------


def damage(laboratory: Laboratory, number: int) -> str:
    """Damage the third chunk of a revision, which no other has, and return the revision's id."""
    repository = laboratory.open()
    revision = repository.records.history()[number]
    path = laboratory.directory / revision.id
    kind = kinds(laboratory)[number]
    if kind == "chunked":
        identity = repository.records.read_map(revision)[2].hex()
        (path,) = laboratory.directory.glob(f"chunks/??/{identity}.*")
    path.chmod(0o600)
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size - 100 if kind == "chunked" else 2 * CHUNK_SIZE)
        stream.write(b"damage")
    return revision.id


def test_a_damaged_revision_stays_until_it_is_given_up(folder: Path, clock: Callable, backy: Callable) -> None:
    for old, new in OTHER.items():
        laboratory = Laboratory(folder / old, clock, {"type": old})
        laboratory.initialize()
        for number in range(3):
            laboratory.content = patterned(0) + bytes(CHUNK_SIZE) + patterned(100 * number)
            laboratory.backup()
        bad = damage(laboratory, 1)

        for _ in range(2):
            done = backy("-b", laboratory.directory, "convert", "--storage", new)
            assert (done.code, done.err.count("\n")) == (1, 2)  # a line of the log, and the error
            assert f"1 revision is damaged and left alone: {bad}; chunk " in done.err
            history = laboratory.open().records.history()
            assert kinds(laboratory) == [new, old, new]
            assert history[1].damaged == (2,)
            assert [*laboratory.open().config.earlier_storages] == [{"type": old}]
        purge(laboratory.open())
        laboratory.read_back(laboratory.open(), {history[0].id, history[2].id})

        assert backy("-b", laboratory.directory, "forget", "-r", bad).code == 0
        assert backy("-b", laboratory.directory, "purge", "--trash").code == 0
        done = backy("-b", laboratory.directory, "convert", "--storage", new)
        assert (done.code, done.out) == (0, f"Converted 0 revisions to '{new}'\n")
        check_files(laboratory, new)


def test_what_the_new_storage_has_and_is_damaged_is_written_again(laboratory: Laboratory) -> None:
    convert_partly(laboratory, 2)
    if laboratory.storage["type"] == "cow":
        for path in laboratory.directory.glob("chunks/??/*"):
            path.chmod(0o600)
            os.truncate(path, 10)
    else:
        path = laboratory.directory / laboratory.open().records.history()[-2].id
        path.chmod(0o600)
        path.write_bytes(bytes(path.stat().st_size))
    convert(laboratory)
    old = {revision.id for revision in laboratory.open().records.history()[:2]}
    laboratory.read_back(laboratory.open(), old)


def test_nothing_is_converted_while_a_record_or_a_map_is_damaged(laboratory: Laboratory) -> None:
    first, second = laboratory.open().records.history()[:2]
    laboratory.open().records.map_path(second.id).unlink()
    failed = Conversion(laboratory.open(), OTHER[laboratory.storage["type"]]).run().failed
    assert list(failed) == [second.id]
    assert "is missing" in failed[second.id]

    path = laboratory.directory / f"{first.id}.rev"
    path.chmod(0o600)
    path.write_bytes(b"{}")
    before = Tree.read(laboratory.directory)
    with pytest.raises(DamageError, match=f"{first.id}.rev .*; nothing is converted before it is forgotten"):
        convert(laboratory)
    assert not before.differences(Tree.read(laboratory.directory))


def test_a_file_system_that_can_not_is_refused_and_all_stays(mount: Callable, clock: Callable, backy: Callable) -> None:
    laboratory = Laboratory(mount("ext4") / "vm", clock, {"type": "chunked"})
    laboratory.initialize()
    laboratory.content = patterned(0)
    laboratory.backup()
    before = Tree.read(laboratory.directory)

    refused = backy("-b", laboratory.directory, "convert", "--storage", "cow")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "can not share blocks between files" in refused.err
    assert not before.differences(Tree.read(laboratory.directory))


def test_a_copy_that_can_take_no_backups_is_converted(mount: Callable, laboratory: Laboratory) -> None:
    """Where files can not share blocks, `cow` can be read, so it can be left."""
    if laboratory.storage["type"] == "chunked":
        convert(laboratory)
    copy = mount("ext4") / "vm"
    laboratory.directory, original = copy, laboratory.directory
    Tree.read(original).write(copy)
    with pytest.raises(StorageError, match="can not share blocks"):
        laboratory.backup()
    assert len(convert(laboratory, "chunked")) == COUNT
    laboratory.check(laboratory.state(0))


# crashes --------------------------------------------------------------------------------------------------------------


def finish(laboratory: Laboratory) -> None:
    """Work with what there is, then go on, and see that all is as if nothing had happened."""
    folder = laboratory.directory / {"chunked": "chunks", "cow": "cow"}[OTHER[laboratory.storage["type"]]]
    unfinished = folder / ".store.tmp"
    if laboratory.open().config.storage.type == laboratory.storage["type"] and unfinished.exists():
        unfinished.rename(folder / "unfinished")  # nobody looks there before the next conversion
    laboratory.check(laboratory.state(0))
    convert(laboratory)
    (folder / "unfinished").unlink(missing_ok=True)
    check_files(laboratory, OTHER[laboratory.storage["type"]])
    laboratory.check(laboratory.state(0))


def test_a_power_loss_at_any_instant_loses_nothing(laboratory: Laboratory, rounds: Callable) -> None:
    recording = laboratory.record(lambda: convert(laboratory))
    chosen = crashes(recording.operations, mixtures=2, seed=1)
    random.Random(1).shuffle(chosen)
    limit = rounds(4, len(chosen))
    for number, (crash, tree) in enumerate(distinct(recording, chosen)):
        if number == limit:
            break
        laboratory.put(tree)
        try:
            finish(laboratory)
        except Exception as error:
            raise AssertionError(str(crash)) from error


@pytest.mark.parametrize("lasting", [False, True], ids=["one call fails", "the disk is full"])
def test_a_failing_call_loses_nothing(laboratory: Laboratory, rounds: Callable, lasting: bool) -> None:
    before = Tree.read(laboratory.directory)
    calls = list(range(len(laboratory.record(lambda: convert(laboratory)).calls)))
    random.Random(2).shuffle(calls)
    for number in calls[: rounds(3, len(calls))]:
        laboratory.put(before)
        failed = laboratory.record(
            lambda: convert(laboratory), Fault(number, errno.ENOSPC if lasting else errno.EIO, lasting)
        )
        try:
            finish(laboratory)
        except Exception as error:
            raise AssertionError(f"call {number}: {failed.calls[-4:]}") from error


def start(laboratory: Laboratory) -> subprocess.Popen:
    code = "from backy.cli.main import main; main()"
    command = [sys.executable, "-c", code, "-b", laboratory.directory, "convert", "--storage"]
    return subprocess.Popen([*command, OTHER[laboratory.storage["type"]]], stdout=subprocess.DEVNULL)


def test_killed_at_any_moment_and_called_again_it_comes_to_its_end(laboratory: Laboratory, rounds: Callable) -> None:
    before = Tree.read(laboratory.directory)
    began = time.monotonic()
    with start(laboratory) as process:
        assert process.wait() == 0
    length = time.monotonic() - began

    killed, count = 0, rounds(3, 100)
    for number in range(count):
        laboratory.put(before)
        for _ in range(2):  # the second one goes on where the first one was killed
            with start(laboratory) as process:
                try:
                    process.wait(length * (0.3 + 0.7 * (number + random.Random(number).random()) / count))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                killed += process.wait() == -signal.SIGKILL
        finish(laboratory)
    assert killed
