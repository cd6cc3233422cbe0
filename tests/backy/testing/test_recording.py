from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from backy import durable
from backy.testing.recording import Fault, IncompleteRecordingError, record
from backy.testing.tree import Sync, Tree
from backy_sources_file import reflink


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "d/old/deep").mkdir(parents=True)
    (tmp_path / "d/old/file").write_bytes(b"old content")
    (tmp_path / "d/old/twin").hardlink_to(tmp_path / "d/old/file")
    (tmp_path / "d/link").symlink_to("old/file")
    return tmp_path / "d"


def replayed(recording) -> Tree:
    tree = recording.before.copy()
    for operation in recording.operations:
        operation.apply(tree)
    return tree


def write_by_descriptor(directory: Path) -> None:
    descriptor = os.open(directory / "link", os.O_WRONLY)
    os.write(descriptor, b"new")
    os.lseek(descriptor, 20, os.SEEK_SET)
    os.write(descriptor, b"beyond")
    os.pwrite(descriptor, b"between", 5)
    os.close(descriptor)
    descriptor = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, b"one")
    os.write(descriptor, b"two")
    os.fchmod(descriptor, 0o440)
    os.ftruncate(descriptor, 4)
    os.close(descriptor)
    os.truncate(directory / "log", 10)
    os.close(os.open(directory / "old/file", os.O_WRONLY | os.O_TRUNC))


def names(directory: Path) -> None:
    os.link(directory / "old/file", directory / "third")
    (directory / "old/file").rename(directory / "moved")
    (directory / "moved").replace(directory / "old/twin")  # the same file: nothing happens
    (directory / "moved").replace(directory / "link")
    (directory / "other").symlink_to("link")
    (directory / "another").symlink_to("link")
    (directory / "another").replace(directory / "other")
    (directory / "a/b/c").mkdir(0o750, parents=True)
    (directory / "a").rename(directory / "z")
    (directory / "z/b").chmod(0o700)
    (directory / "z/b/c").rmdir()
    (directory / "link").unlink()


def through_folders(directory: Path) -> None:
    folder = os.open(directory / "old", os.O_RDONLY | os.O_DIRECTORY)
    os.mkdir("made", dir_fd=folder)
    os.unlink("twin", dir_fd=folder)
    os.rename("file", "../file", src_dir_fd=folder, dst_dir_fd=folder)
    os.close(folder)
    shutil.rmtree(directory / "old")


def by_backy(directory: Path) -> None:
    durable.write_file(directory / "record", bytes(200_000) + b"end")
    durable.write_file(directory / "record", b"again", 0o600)
    durable.replace_link(directory / "link", "record")


@pytest.mark.parametrize("action", [write_by_descriptor, names, through_folders, by_backy])
def test_doing_a_recording_again_gives_the_directory_byte_for_byte(directory: Path, action) -> None:
    before = Tree.read(directory)
    with record(directory) as recording:
        action(directory)

    assert recording.before.listing() == before.listing()
    assert replayed(recording).listing() == Tree.read(directory).listing() != before.listing()


def test_a_tree_written_reads_back_the_same(directory: Path, tmp_path: Path) -> None:
    tree = Tree.read(directory)
    tree.write(tmp_path / "copy")

    assert Tree.read(tmp_path / "copy").listing() == tree.listing()
    assert (tmp_path / "copy/old/twin").samefile(tmp_path / "copy/old/file")


def test_a_tree_of_something_else_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is neither"):
        Tree.read(tmp_path)


def name_what_had_none(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDWR | os.O_TMPFILE)
    folder = os.open(directory, os.O_RDONLY)
    os.link(f"/proc/self/fd/{descriptor}", "named", src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)


def copy_by_the_kernel(directory: Path) -> None:
    with (directory / "old/file").open("rb") as source:
        target = os.open(directory / "copy", os.O_WRONLY | os.O_CREAT)
        os.copy_file_range(source.fileno(), target, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda directory: (directory / "old/file").open("wb").close(),
        lambda directory: (directory / "link").rename(directory.parent / "out"),
        name_what_had_none,
        copy_by_the_kernel,
    ],
    ids=["open", "rename out", "O_TMPFILE", "copy_file_range"],
)
def test_a_change_that_is_not_recorded_is_loud(directory: Path, change) -> None:
    with pytest.raises(IncompleteRecordingError), record(directory):
        change(directory)


def test_what_happens_elsewhere_is_not_recorded(directory: Path, tmp_path: Path) -> None:
    with record(directory) as recording:
        durable.write_file(tmp_path / "elsewhere", b"content")
        (tmp_path / "folder").mkdir()

    assert recording.operations == []
    assert recording.calls == []


def test_syncs_are_recorded(directory: Path) -> None:
    with record(directory) as recording:
        durable.sync_folder(directory / "old")
        durable.sync_file_system_of(directory)

    assert recording.operations == [Sync(recording.before.find("old")), Sync(None)]


def test_functions_are_what_they_were_afterwards(directory: Path) -> None:
    before = dict(vars(os)), durable.c_call
    with record(directory):
        assert os.write is not before[0]["write"]

    assert (dict(vars(os)), durable.c_call) == before


@pytest.mark.parametrize("call", range(6))
def test_every_call_can_be_made_to_fail(directory: Path, call: int) -> None:
    def action() -> None:
        durable.write_file(directory / "new", b"content")

    with record(directory) as recording:
        action()
    (directory / "new").unlink()
    with record(directory, Fault(call)) as failed, pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        action()

    assert recording.calls[: call + 1] == failed.calls[: call + 1]
    assert caught.value.filename


def test_syncfs_can_be_made_to_fail(directory: Path) -> None:
    with record(directory, Fault(0)), pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.sync_file_system_of(directory)


def test_on_a_disk_that_stays_full_removals_work(directory: Path) -> None:
    with record(directory, Fault(0, errno.ENOSPC, lasting=True)):
        for name in ("one", "two"):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                durable.write_file(directory / name, b"content")
        (directory / "link").unlink()

    assert [path.name for path in directory.iterdir()] == ["old"]


def test_clones_and_holes_are_recorded_and_can_fail(mount) -> None:
    folder = mount("btrfs")
    (folder / "origin").write_bytes(b"content" * 10_000)

    def work() -> None:
        origin = os.open(folder / "origin", os.O_RDONLY)
        clone = os.open(folder / "clone", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            reflink.clone(origin, clone)
            durable.punch_hole(clone, 4096, 4096)
            durable.punch_hole(clone, 65_536, 2**20)
        finally:
            os.close(clone)
            os.close(origin)

    with record(folder) as recording:
        work()
    assert recording.calls == ["open", "ioctl", "fallocate64", "fallocate64"]
    assert not replayed(recording).differences(Tree.read(folder))
    for call in (1, 2):
        (folder / "clone").unlink()
        with pytest.raises(OSError, match="No space"), record(folder, Fault(call, errno.ENOSPC)):
            work()
