"""Freezing on real file systems: what is made, what is left, and what is said where it can not be done."""

from __future__ import annotations

import logging
import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, Extent, SourceError
from backy_sources_file import FileSource, reflink

JOB = "QmC3ZJ7nVfqSWP2uXtKhaB"
FIRST, SECOND, THIRD = "firstrevision", "secondrevision", "thirdrevision"
PAGE = 4096
SIZE = 4 * CHUNK_SIZE


def image(folder: Path, name: str = "disk.img") -> Path:
    """Write an image of chunks that a compressing file system leaves alone."""
    (folder / name).write_bytes(random.Random(1).randbytes(SIZE))
    return folder / name


def write(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def clones(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".backy"))


def back_up(source: FileSource, revision_id: str, parent: str | None = None) -> list[Extent] | None:
    """Go through the motions of a backup and return what is said to have changed."""
    with source.snapshot(revision_id, parent) as snapshot:
        changes = snapshot.changes()
        return None if changes is None else list(changes)


@pytest.fixture(params=["btrfs", "btrfs zstd", "xfs"])
def folder(request: pytest.FixtureRequest, mount: Callable[..., Path]) -> Path:
    """A folder on a file system that can make clones."""
    return mount(request.param, 300 * 2**20)


@pytest.fixture
def xfs(mount: Callable[..., Path]) -> Path:
    return mount("xfs", 300 * 2**20)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_during_a_backup_the_image_is_frozen_and_nothing_is_seen_of_it_before_or_after(folder) -> None:
    path = image(folder)
    content = path.read_bytes()
    with FileSource(path, JOB, "during-backup").snapshot(FIRST, None) as snapshot:
        write(path, 0, b"too late")
        os.truncate(path, SIZE // 2)
        assert (snapshot.size, snapshot.pread(0, SIZE)) == (SIZE, content)
        assert snapshot.changes() is None
        assert clones(folder) == []
    assert list(folder.iterdir()) == [path]


def test_a_frozen_image_is_read_even_if_its_name_goes(folder) -> None:
    path = image(folder)
    content = path.read_bytes()
    with FileSource(path, JOB, "during-backup").snapshot(FIRST, None) as snapshot:
        path.unlink()
        assert snapshot.pread(0, SIZE) == content


def test_not_frozen_means_as_it_lies_there(folder) -> None:
    path = image(folder)
    with FileSource(path, JOB, "off").snapshot(FIRST, None) as snapshot:
        write(path, 0, b"just now")
        assert snapshot.pread(0, 8) == b"just now"


def test_the_newest_clone_is_kept_and_tells_what_changed(folder) -> None:
    path = image(folder)
    source = FileSource(path, JOB, "keep")
    assert back_up(source, FIRST) is None
    assert clones(folder) == [f".backy-{JOB}@{FIRST}"]
    assert stat.S_IMODE((folder / f".backy-{JOB}@{FIRST}").stat().st_mode) == 0o600

    write(path, CHUNK_SIZE, b"changed")
    assert back_up(source, SECOND, FIRST) == [Extent(CHUNK_SIZE, PAGE, data=True)]
    assert clones(folder) == [f".backy-{JOB}@{SECOND}"]
    assert back_up(source, THIRD, SECOND) == []


def test_what_is_kept_is_what_was_backed_up_not_what_was_written_meanwhile(folder) -> None:
    path = image(folder)
    source = FileSource(path, JOB, "keep")
    content = path.read_bytes()
    with source.snapshot(FIRST, None):
        write(path, 0, b"meanwhile")
    assert (folder / clones(folder)[0]).read_bytes() == content
    assert back_up(source, SECOND, FIRST) == [Extent(0, PAGE, data=True)]


def test_a_backup_that_fails_keeps_nothing_and_leaves_what_was_kept(folder) -> None:
    path = image(folder)
    source = FileSource(path, JOB, "keep")
    back_up(source, FIRST)
    write(path, 0, b"changed")
    with pytest.raises(ZeroDivisionError), source.snapshot(SECOND, FIRST):
        raise ZeroDivisionError
    assert clones(folder) == [f".backy-{JOB}@{FIRST}"]
    assert back_up(source, THIRD, FIRST) == [Extent(0, PAGE, data=True)]


def test_an_image_that_is_written_in_place_is_frozen_by_a_clone_of_its_kind(mount) -> None:
    folder = mount("btrfs", 300 * 2**20)
    (folder / "disk.img").touch()
    subprocess.run(["chattr", "+C", folder / "disk.img"], check=True)
    path = image(folder)
    source = FileSource(path, JOB, "keep")
    back_up(source, FIRST)
    with (folder / clones(folder)[0]).open("rb") as clone:
        assert reflink.is_no_cow(clone.fileno())
    write(path, 5 * PAGE, b"changed")
    assert back_up(source, SECOND, FIRST) == [Extent(5 * PAGE, PAGE, data=True)]


def test_clones_lie_where_the_image_really_is(xfs, tmp_path) -> None:
    image(xfs)
    (tmp_path / "link").symlink_to(xfs / "disk.img")
    source = FileSource(tmp_path / "link", JOB, "keep")
    back_up(source, FIRST)
    assert clones(xfs) == [f".backy-{JOB}@{FIRST}"]
    assert clones(tmp_path) == []
    assert back_up(source, SECOND, FIRST) == []


def test_a_killed_backup_leaves_nothing_and_the_next_one_still_knows_what_changed(folder) -> None:
    path = image(folder)
    source = FileSource(path, JOB, "keep")
    back_up(source, FIRST)
    write(path, 0, b"changed")
    script = (
        "import os, signal, sys; from pathlib import Path; from backy_sources_file import FileSource\n"
        "with FileSource(Path(sys.argv[1]), sys.argv[2], 'keep').snapshot('killed', sys.argv[3]) as snapshot:\n"
        "    assert list(snapshot.changes())\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path, JOB, FIRST], check=False)
    assert done.returncode == -signal.SIGKILL
    assert clones(folder) == [f".backy-{JOB}@{FIRST}"]
    assert back_up(source, SECOND, FIRST) == [Extent(0, PAGE, data=True)]


@pytest.mark.parametrize("freeze", ["off", "during-backup", "keep"])
def test_what_a_crash_left_is_removed_whatever_the_job_does_now(xfs, freeze) -> None:
    path = image(xfs)
    for revision in (FIRST, SECOND):
        (xfs / f".backy-{JOB}@{revision}").touch()
    back_up(FileSource(path, JOB, freeze), THIRD, None)
    assert clones(xfs) == ([f".backy-{JOB}@{THIRD}"] if freeze == "keep" else [])


def test_jobs_leave_each_others_clones_alone(xfs) -> None:
    path = image(xfs)
    jobs = [JOB, JOB + "-2", "a", "a@b", "../escape", "with space/and slash"]
    for job in jobs:
        back_up(FileSource(path, job, "keep"), FIRST)
    assert len(clones(xfs)) == len(jobs)
    assert all("/" not in name for name in clones(xfs))
    for job in jobs:
        assert back_up(FileSource(path, job, "keep"), SECOND, FIRST) == []
    FileSource(path, JOB, "keep").retain(())
    FileSource(path, "a", "keep").retain(())
    assert len(clones(xfs)) == len(jobs) - 2
    assert len(list(xfs.parent.iterdir())) == 2


def test_what_is_kept_for_other_revisions_is_let_go_of(xfs) -> None:
    path = image(xfs)
    source = FileSource(path, JOB, "keep")
    back_up(source, FIRST)
    source.retain([FIRST, SECOND])
    assert clones(xfs) == [f".backy-{JOB}@{FIRST}"]
    source.retain([SECOND])
    assert clones(xfs) == []


def test_a_link_that_leads_to_itself_is_no_image_and_has_no_clones(tmp_path) -> None:
    (tmp_path / "link").symlink_to("link")
    source = FileSource(tmp_path / "link", JOB, "keep")
    with pytest.raises(SourceError, match="symbolic links"):
        back_up(source, FIRST)
    source.retain(())


def test_there_is_nothing_to_let_go_of_where_there_is_no_folder(tmp_path) -> None:
    FileSource(tmp_path / "nowhere" / "disk.img", JOB, "keep").retain(())


def test_what_can_not_be_removed_is_an_error_but_hinders_no_backup(xfs, caplog) -> None:
    path = image(xfs)
    source = FileSource(path, JOB, "keep")
    (xfs / f".backy-{JOB}@{FIRST}").mkdir()
    with pytest.raises(SourceError, match=rf"source {path}: clones of it can not be removed: .*@{FIRST}"):
        source.retain(())
    back_up(source, SECOND)
    assert "can not be removed" in warnings(caplog)[0]


# full reads, and one line that says so --------------------------------------------------------------------------------


def test_a_clone_that_is_missing_means_that_all_is_read(xfs, caplog) -> None:
    path = image(xfs)
    source = FileSource(path, JOB, "keep")
    back_up(source, FIRST)
    (xfs / clones(xfs)[0]).unlink()
    assert back_up(source, SECOND, FIRST) is None
    assert warnings(caplog) == [f"source {path} is read from end to end: the clone of revision {FIRST} is missing"]
    assert back_up(source, THIRD, SECOND) == []


def overwritten(clone: Path, path: Path) -> None:
    write(clone, 0, b"foreign")


def cloned_anew(clone: Path, path: Path) -> None:
    subprocess.run(["cp", "--reflink=always", path, clone], check=True)


def cloned_anew_with_its_times(clone: Path, path: Path) -> None:
    subprocess.run(["cp", "-p", "--reflink=always", path, clone], check=True)


def copied(clone: Path, path: Path) -> None:
    subprocess.run(["cp", "-a", clone, clone.with_name("copy")], check=True)
    clone.with_name("copy").rename(clone)


def replaced(clone: Path, path: Path) -> None:
    clone.unlink()
    clone.write_bytes(path.read_bytes())


def renamed(clone: Path, path: Path) -> None:
    source = FileSource(path, JOB, "keep")
    write(path, 0, b"newer")
    back_up(source, THIRD)
    clone.with_name(f".backy-{JOB}@{THIRD}").rename(clone)


def a_folder(clone: Path, path: Path) -> None:
    clone.unlink()
    clone.mkdir()


def a_fifo(clone: Path, path: Path) -> None:
    clone.unlink()
    os.mkfifo(clone)


@pytest.mark.parametrize(
    "spoil",
    [overwritten, cloned_anew, cloned_anew_with_its_times, copied, replaced, renamed, a_folder, a_fifo],
    ids=lambda spoil: spoil.__name__,
)
def test_a_clone_that_is_not_what_it_was_means_that_all_is_read(xfs, caplog, spoil) -> None:
    path = image(xfs)
    source = FileSource(path, JOB, "keep")
    back_up(source, FIRST)
    write(path, CHUNK_SIZE, b"changed")
    spoil(xfs / f".backy-{JOB}@{FIRST}", path)
    caplog.clear()
    assert back_up(source, SECOND, FIRST) is None
    assert warnings(caplog)[0] == (
        f"source {path} is read from end to end: the clone of revision {FIRST} is not what it was"
    )


def test_a_link_in_the_place_of_a_clone_is_not_followed(xfs, caplog) -> None:
    path = image(xfs)
    source = FileSource(path, JOB, "keep")
    back_up(source, FIRST)
    (xfs / clones(xfs)[0]).rename(xfs / "elsewhere")
    (xfs / f".backy-{JOB}@{FIRST}").symlink_to(xfs / "elsewhere")
    assert back_up(source, SECOND, FIRST) is None
    assert "is read from end to end" in warnings(caplog)[0]
    assert (xfs / "elsewhere").exists()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("its extents are being moved"), "its extents are being moved"),
        (OSError(95, "Operation not supported"), "its extents can not be told: [Errno 95] Operation not supported"),
        (ValueError("an extent of 0 bytes"), "an extent of 0 bytes"),
    ],
)
def test_extents_that_move_or_are_not_told_mean_that_all_is_read(xfs, caplog, monkeypatch, error, cause) -> None:
    path = image(xfs)
    source = FileSource(path, JOB, "keep")
    back_up(source, FIRST)

    def fail(_old: int, _new: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("backy_sources_file.fiemap.changes", fail)
        assert back_up(source, SECOND, FIRST) is None
    assert warnings(caplog) == [f"source {path} is read from end to end: {cause}"]
    assert back_up(source, THIRD, SECOND) == []


def test_an_older_parent_means_that_all_is_read(xfs) -> None:
    path = image(xfs)
    source = FileSource(path, JOB, "keep")
    back_up(source, FIRST)
    back_up(source, SECOND, FIRST)
    assert back_up(source, THIRD, FIRST) is None
    assert clones(xfs) == [f".backy-{JOB}@{THIRD}"]


def test_another_image_in_the_same_place_is_told_apart(folder) -> None:
    path = image(folder)
    source = FileSource(path, JOB, "keep")
    back_up(source, FIRST)
    other = folder / "other.img"
    other.write_bytes(random.Random(2).randbytes(SIZE))
    other.rename(path)
    changes = back_up(source, SECOND, FIRST)
    assert changes is not None
    assert sum(extent.length for extent in changes if extent.data) == SIZE


# where it can not be frozen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ext4", "xfs without reflink"])
@pytest.mark.parametrize(("freeze", "level"), [("during-backup", logging.INFO), ("keep", logging.WARNING)])
def test_where_there_can_be_no_clones_the_image_is_read_as_it_lies_there(mount, caplog, kind, freeze, level) -> None:
    caplog.set_level(logging.INFO)
    folder = mount(kind, 300 * 2**20)
    path = image(folder)
    source = FileSource(path, JOB, freeze)
    content = path.read_bytes()
    with source.snapshot(FIRST, None) as snapshot:
        assert snapshot.pread(0, SIZE) == content
        assert snapshot.changes() is None
    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage() == (
        f"source {path} is read as it lies there, for it can not be frozen: its file system can not share blocks "
        "between files"
    )
    assert clones(folder) == []


def test_in_a_read_only_folder_the_image_is_read_as_it_lies_there(xfs, caplog) -> None:
    path = image(xfs)
    source = FileSource(path, JOB, "keep")
    back_up(source, FIRST)
    subprocess.run(["mount", "-o", "remount,ro", xfs], check=True)
    content = path.read_bytes()
    with source.snapshot(SECOND, None) as snapshot:
        assert snapshot.pread(0, SIZE) == content
    clone = f"{xfs}/.backy-{JOB}@{FIRST}"
    cause = f"source {path}: clones of it can not be removed: [Errno 30] Read-only file system: '{clone}'"
    assert warnings(caplog) == [
        f"old clones stay until the next backup: {cause}",
        f"source {path} is read as it lies there, for it can not be frozen: Read-only file system",
    ]


def test_who_may_not_write_to_the_folder_reads_the_image_as_it_lies_there(xfs, caplog, as_nobody) -> None:
    caplog.set_level(logging.INFO)
    path = image(xfs)
    xfs.parent.chmod(0o711)
    xfs.chmod(0o711)
    with as_nobody():
        assert back_up(FileSource(path, JOB, "during-backup"), FIRST) is None
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().endswith("can not be frozen: Permission denied")


def test_a_block_device_is_never_frozen(xfs, loop_device, caplog) -> None:
    caplog.set_level(logging.INFO)
    device = loop_device(image(xfs))
    with FileSource(device, JOB, "keep").snapshot(FIRST, None) as snapshot:
        assert snapshot.changes() is None
        assert list(snapshot.extents()) == [Extent(0, SIZE, data=True)]
    assert caplog.records == []


def test_a_clone_that_can_not_be_kept_is_said_and_harms_nothing(xfs, caplog, monkeypatch) -> None:
    path = image(xfs)
    source = FileSource(path, JOB, "keep")

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "setxattr", full)
        assert back_up(source, FIRST) is None
    assert warnings(caplog) == [
        f"source {path}: no clone is kept, so the next backup reads all of it: [Errno 28] No space left on device"
    ]
    assert clones(xfs) == []
