"""What is there of a group that is not whole: nobody takes it for one, and nothing is lost for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backy.errors import BackyError, DamageError, RepositoryError, SourceError, UnreadError
from backy.groups.acts import backup, purge_all
from backy.groups.forget import forget, undelete
from backy.groups.group import Group, opened
from backy.mount.tree import tree_of
from backy.repository.records import Records
from backy.repository.running import running_path
from backy.repository.sealed import encode


def killed_between_records(group: Group, after: int = 1) -> str:
    """Back up in a process that is killed once `after` disks have their records; return the id."""
    before = {one.id for one in group.together()}
    pid = os.fork()
    if pid == 0:
        add, left = Records.add, after

        def counted(self: Records, revision: Any) -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            add(self, revision)

        try:
            Records.add = counted  # type: ignore[method-assign]  # in this process only
            backup(group, ("daily",))
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    (made,) = {one for name in group.names() for one in Records(group.directory / name).ids()} - before
    return made


def seen_by_disks(group: Group, backy) -> list[set[str]]:
    """Return the revisions that status, mount, `find` and restore.py show, for each disk."""
    found = []
    for name in group.names():
        directory = group.directory / name
        ids = {one.id for one in Records(directory).history()}
        shown = {one for one in ids if one in backy("-b", directory, "status", "--wide").out}
        tree = tree_of(directory)
        mounted = set(tree.find([]).names()) - {"by-date", "by-tag", "last"}
        script = [sys.executable, str(directory / "restore.py")]
        listed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
        assert ids == shown == mounted == {one for one in Records(directory).ids() if f"  {one}  " in listed}
        found.append(ids)
    return found


def test_no_disk_shows_what_others_do_not_have_yet(machine: Callable[..., Group], backy) -> None:
    group = machine("root", "data")
    first = backup(group, ("daily",))
    half = killed_between_records(group)

    assert sum(Records(group.directory / name).holds(half) for name in group.names()) == 2
    assert sum(half in Records(group.directory / name).ids() for name in group.names()) == 1
    assert seen_by_disks(group, backy) == [{first.id}, {first.id}]
    for name in group.names():
        assert tree_of(group.directory / name).find([half]) is None
        assert backy("-b", group.directory / name, "find", "--id", "-r", "last").out == f"{first.id}\n"
        assert (group.directory / name / "last.rev").readlink().stem == first.id
    shown = backy("-b", group.directory, "status")
    assert (shown.code, f"{half} is being made, or its backup was interrupted" in shown.out) == (0, True)
    second = backup(group, ("daily",))
    assert seen_by_disks(group, backy) == [{first.id, second.id}] * 2
    assert [Records(group.directory / name).holds(half) for name in group.names()] == [False, False]


def test_what_was_killed_after_the_last_record_is_whole(machine: Callable[..., Group], backy) -> None:
    group = machine("root", "data")
    made = backup(group, ("daily",))
    disks = made.revision.group
    running_path(group.directory, made.id).write_bytes(f'{{"id":"{made.id}","disks":["root","data"]}}'.encode())

    assert disks
    assert seen_by_disks(group, backy) == [{made.id}, {made.id}]
    # bit rot must not turn it into what did not end
    record = Records(group.directory / "root").record_path(made.id)
    record.chmod(0o600)
    record.write_bytes(b"rotten")
    backup(group, ("daily",))
    assert made.id in Records(group.directory / "data").ids()
    assert not list(group.directory.glob(".*.running"))


def test_a_folder_that_is_moved_away_costs_no_other_disk_what_it_has(machine: Callable[..., Group]) -> None:
    group = machine("root", "data")
    made = backup(group, ("daily",))
    running_path(group.directory, made.id).write_bytes(f'{{"id":"{made.id}","disks":["root","data"]}}'.encode())
    (group.directory / "root").rename(group.directory.parent / "aside")
    backup(group, ("daily",))
    shutil.rmtree(group.directory / "root")
    (group.directory.parent / "aside").rename(group.directory / "root")

    assert made.id in {one.id for one in group.together()}


@pytest.mark.parametrize("stage", ["pread", "add"])
def test_no_source_drops_what_the_next_backup_needs_because_another_disk_fails(
    machine: Callable[..., Group], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from contextlib import contextmanager

    from backy_sources_file import FileSource
    from backy_sources_file.source import OpenFile

    group = machine("root", "data", "more")
    first = backup(group, ("daily",))
    ends: list[str] = []
    taken: list[Any] = []
    snapshot, add, pread = FileSource.snapshot, Records.add, OpenFile.pread

    @contextmanager
    def watched(source: FileSource, *arguments: Any) -> Any:
        try:
            with snapshot(source, *arguments) as found:
                taken.append(found)
                yield found
        except BaseException:
            ends.append("failed")
            raise
        ends.append("done")

    def reading(image: OpenFile, *arguments: int) -> bytes:
        if stage == "pread" and image is taken[1]:
            raise SourceError("unplugged")
        return pread(image, *arguments)

    def adding(records: Records, revision: Any) -> None:
        if stage == "add" and records.directory.name == "data":
            raise OSError(28, "No space left on device")
        add(records, revision)

    monkeypatch.setattr(FileSource, "snapshot", watched)
    monkeypatch.setattr(Records, "add", adding)
    monkeypatch.setattr(OpenFile, "pread", reading)
    with pytest.raises((BackyError, OSError), match=r"unplugged|No space"):
        backup(group, ("daily",))

    assert ends == ["failed"] * 3
    assert [Records(group.directory / name).ids() for name in group.names()] == [{first.id}] * 3
    assert not list(group.directory.glob("**/.*.running"))


def lose(group: Group, name: str, revision_id: str) -> None:
    """Remove all of a revision of one disk, as by hand."""
    for path in (group.directory / name).glob(f"{revision_id}.*"):
        path.unlink()


def test_what_is_left_of_a_group_is_forgotten_by_its_full_id(machine: Callable[..., Group], backy) -> None:
    group = machine("root", "data")
    first, second = backup(group, ("daily",)), backup(group, ("daily",))
    lose(group, "root", first.id)

    told = backy("-b", group.directory, "status")
    assert (told.code, f"of {first.id} not all disks are there: root is missing, data is there" in told.err) == (
        1,
        True,
    )
    assert backy("-b", group.directory, "forget", "-r", first.id).out == f"Forgot {first.id}\n"
    assert backy("-b", group.directory, "status").code == 0
    assert backy("-b", group.directory, "purge", "--trash").code == 0
    assert [Records(group.directory / name).ids() for name in group.names()] == [{second.id}, {second.id}]


def test_a_group_with_a_damaged_record_is_forgotten_by_its_full_id(machine: Callable[..., Group], backy) -> None:
    group = machine("root", "data")
    first, second = backup(group, ("daily",)), backup(group, ("daily",))
    record = Records(group.directory / "data").record_path(first.id)
    record.chmod(0o600)
    record.write_bytes(b"rotten")

    assert backy("-b", group.directory, "forget", "-r", first.id).code == 0
    assert [Records(group.directory / name).ids() for name in group.names()] == [{first.id, second.id}, {second.id}]
    assert [one.id for one in Records(group.directory / "root").history()] == [second.id]
    assert backy("-b", group.directory, "status").code == 0


def test_last_is_no_older_one_because_the_newest_is_not_whole(
    machine: Callable[..., Group], backy, tmp_path: Path
) -> None:
    group = machine("root", "data")
    first, second = backup(group, ("daily",)), backup(group, ("daily",))
    for damage in ("missing", "damaged in one", "damaged in both"):
        lose(group, "root", second.id)
        for name in {"missing": [], "damaged in one": ["root"], "damaged in both": ["root", "data"]}[damage]:
            record = Records(group.directory / name).record_path(second.id)
            record.unlink(missing_ok=True)
            record.write_bytes(b"rotten")
            (group.directory / name / "last.rev").unlink()
            (group.directory / name / "last.rev").symlink_to(record.name)
        refused = backy("-b", group.directory, "restore", "--group", tmp_path / "restored")
        assert (refused.code, refused.err.count("\n"), f"-r {first.id} restores the state of" in refused.err) == (
            1,
            1,
            True,
        )
        assert not (tmp_path / "restored").exists()
    assert backy("-b", group.directory, "restore", "--group", "-r", first.id, tmp_path / "restored").code == 0


def test_one_disk_that_was_copied_alone_is_a_repository_as_others(machine: Callable[..., Group], backy) -> None:
    group = machine("root", "data")
    made = [backup(group, ("daily",)) for _ in range(2)]
    alone = group.directory.parent / "elsewhere" / "data"
    shutil.copytree(group.directory / "data", alone, symlinks=True)

    assert backy("-b", alone, "status").code == 0
    assert backy("-b", alone, "forget", "-r", made[0].id).code == 0
    assert backy("-b", alone, "undelete", made[0].id).code == 0
    assert backy("-b", alone, "restore", group.directory.parent / "again.img").code == 0
    assert (group.directory.parent / "again.img").read_bytes() == (group.directory.parent / "data.img").read_bytes()


def test_a_group_that_was_copied_is_one_there(machine: Callable[..., Group], backy, tmp_path: Path) -> None:
    group = machine("root", "data")
    made = backup(group, ("daily",))
    shutil.copytree(group.directory, tmp_path / "server/moved", symlinks=True)

    assert made.id in backy("-b", tmp_path / "server/moved", "status", "--wide").out
    assert backy("-b", tmp_path / "server/moved", "restore", "--group", tmp_path / "restored").code == 0
    assert (tmp_path / "restored/data.img").read_bytes() == (tmp_path / "data.img").read_bytes()


def test_no_disk_comes_back_from_the_trash_alone(machine: Callable[..., Group], backy) -> None:
    group = machine("root", "data")
    first, _ = backup(group, ("daily",)), backup(group, ("daily",))
    forget(group, [first.id])

    refused = backy("-b", group.directory / "root", "undelete", first.id)
    assert (refused.code, f"backy -b {group.directory} undelete {first.id}" in refused.err) == (1, True)
    with pytest.raises(RepositoryError):
        undelete(group.repository("data"), first.id)
    assert [one.id for one in group.together(trash=True)] == [first.id]


def test_what_is_purged_of_one_disk_is_no_damage(machine: Callable[..., Group], backy) -> None:
    group = machine("root", "data")
    first, _ = backup(group, ("daily",)), backup(group, ("daily",))
    forget(group, [first.id])
    assert backy("-b", group.directory / "root", "purge", "--trash").code == 0

    assert backy("-b", group.directory, "status").code == 0
    assert backy("-b", group.directory, "undelete", first.id).code == 1
    purge_all(group, everything=True)
    assert first.id not in Records(group.directory / "data").ids()


def test_a_disk_that_is_read_keeps_no_other_from_being_purged(machine: Callable[..., Group]) -> None:
    from backy.errors import RepositoryBusyError
    from backy.system.locking import PURGE_LOCK, shared

    group = machine("data", "root")
    first, _ = backup(group, ("daily",)), backup(group, ("daily",))
    forget(group, [first.id])
    with shared(group.directory / "data", PURGE_LOCK), pytest.raises(RepositoryBusyError):
        purge_all(group, everything=True)

    assert [first.id in Records(group.directory / name).ids() for name in ("data", "root")] == [False, False]


def test_without_a_trash_a_killed_forget_goes_on_with_the_next_command(
    machine: Callable[..., Group], monkeypatch: pytest.MonkeyPatch, backy
) -> None:
    group = machine("root", "data", trash="0s")
    first, second = backup(group, ("daily",)), backup(group, ("daily",))
    pid = os.fork()
    if pid == 0:
        remove, left = Records.remove, 1

        def counted(self: Records, *arguments: Any) -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            remove(self, *arguments)

        try:
            Records.remove = counted  # type: ignore[method-assign]  # in this process only
            forget(group, [first.id])
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])

    assert seen_by_disks(group, backy) == [{second.id}] * 2
    forget_nothing = backy("-b", group.directory, "expire")
    assert forget_nothing.code == 0
    backup(group, ("daily",))
    assert [first.id in Records(group.directory / name).ids() for name in group.names()] == [False, False]


def test_what_can_not_be_read_now_is_not_forgotten(
    machine: Callable[..., Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = machine("root", "data")
    first, _ = backup(group, ("daily",)), backup(group, ("daily",))
    read_state = Records.read_state

    def unreadable(records: Records, revision_id: str) -> Any:
        if (records.directory.name, revision_id) == ("data", first.id):
            raise UnreadError(f"{revision_id}.state can not be read: Input/output error")
        return read_state(records, revision_id)

    monkeypatch.setattr(Records, "read_state", unreadable)
    with pytest.raises(UnreadError):
        forget(group, [first.id])
    monkeypatch.undo()
    assert first.id in {one.id for one in group.together()}


def test_a_wrong_disk_is_not_hidden_by_a_distrusted_one(machine: Callable[..., Group]) -> None:
    from backy.repository.revision import Wrong

    group = machine("root", "data")
    made = backup(group, ("daily",))
    for name, state in ("root", {"distrusted": True}), ("data", {"wrong": Wrong((0,), made.revision.timestamp)}):
        repository = group.repository(name)
        with repository.locked():
            repository.records.change(made.members[name], **state)

    with pytest.raises(DamageError, match="the source had other content"):
        group.select("last")


def test_a_group_in_the_directory_of_one_image_is_refused(machine: Callable[..., Group], backy, tmp_path: Path) -> None:
    (tmp_path / "web1.img").write_bytes(b"one image")
    assert backy("-b", tmp_path / "web1", "init", "file", tmp_path / "web1.img").code == 0
    assert backy("-b", tmp_path / "web1", "backup", "daily").code == 0
    config = (tmp_path / "web1/config").read_bytes()
    (tmp_path / "web1/config").unlink()
    with pytest.raises(BackyError, match="revisions of one image"):
        machine("root", "data")
    (tmp_path / "web1/config").write_bytes(config)
    assert backy("-b", tmp_path / "web1", "status").code == 0


def test_the_config_of_a_disk_that_is_lost_comes_back(machine: Callable[..., Group]) -> None:
    group = machine("root", "data")
    first = backup(group, ("daily",))
    (group.directory / "root/config").unlink()
    second = backup(group, ("daily",))

    assert [one.id for one in group.together()] == [first.id, second.id]
    assert second.members["root"].seq == second.members["data"].seq
    assert opened(group.directory)


def test_what_stands_for_all_has_the_worst_of_them(machine: Callable[..., Group]) -> None:
    group = machine("root", "data")
    made = backup(group, ("daily",))
    worst = {"consistency": "none", "compared_since": None}
    import msgspec

    torn = msgspec.structs.replace(made.members["data"], **worst)
    path = Records(group.directory / "data").record_path(made.id)
    path.chmod(0o600)
    path.write_bytes(encode(torn.record))
    found = group.together()[0].revision

    assert (found.consistency, found.compared_since) == ("none", None)
    assert found.size == sum(one.size for one in made.members.values())
    assert found.verification
    assert found.verification.total == sum(one.verification.total for one in made.members.values() if one.verification)


@pytest.mark.parametrize("place", ["web1", "web1/new", "web1/root"])
def test_nothing_is_restored_into_the_repositories(
    machine: Callable[..., Group], backy, tmp_path: Path, place: str
) -> None:
    group = machine("root", "data")
    backup(group, ("daily",))
    before = sorted(group.directory.rglob("*"))
    refused = backy("-b", group.directory, "restore", "--group", tmp_path / place)

    assert (refused.code, "lies inside of the repositories" in refused.err) == (1, True)
    assert sorted(group.directory.rglob("*")) == before
