from __future__ import annotations

import errno
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from backy.durable import (
    READ_ONLY,
    WrongFileError,
    open_regular,
    punch_hole,
    read_file,
    replace_link,
    sync_file_system,
    sync_file_system_of,
    sync_folder,
    write_all,
    write_file,
)
from tests.wrong_files import WRONG


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "config"
    write_file(path, b"old")
    write_file(path, b"new", 0o640)

    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_a_file_can_be_read_only_and_still_be_replaced(tmp_path: Path) -> None:
    write_file(tmp_path / "config", b"old")

    assert stat.S_IMODE((tmp_path / "config").stat().st_mode) == READ_ONLY


def test_long_zeroes_become_holes(tmp_path: Path) -> None:
    content = b"head" + bytes(2**20) + b"tail"
    write_file(tmp_path / "map", content)

    assert (tmp_path / "map").read_bytes() == content
    assert (tmp_path / "map").stat().st_blocks * 512 <= 256 * 1024


def test_what_a_crash_left_is_replaced_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / ".config.tmp").symlink_to("victim")
    write_file(tmp_path / "config", b"new")

    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert (tmp_path / "config").read_bytes() == b"new"
    assert not (tmp_path / "config").is_symlink()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()

    with pytest.raises(IsADirectoryError):
        write_file(tmp_path / "config", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_all_is_written_though_a_pipe_takes_little_at_a_time() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        write_all(writer, b"x" * 1000)
        assert os.read(reader, 2000) == b"x" * 1000
    finally:
        os.close(reader)
        os.close(writer)


def test_a_link_is_replaced_by_renaming(tmp_path: Path) -> None:
    link = tmp_path / "last"
    link.symlink_to("old")
    (tmp_path / ".last.tmp").symlink_to("left over")
    replace_link(link, "new")

    assert link.readlink() == Path("new")
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize("kind", ["btrfs", "btrfs zstd", "xfs", "ext4"])
def test_a_punched_hole_reads_as_zeroes_and_frees_its_blocks(mount, kind) -> None:
    folder = mount(kind)

    def used() -> int:
        sync_file_system_of(folder)
        return shutil.disk_usage(folder).used

    with (folder / "file").open("w+b") as file:
        descriptor = file.fileno()
        content = random.Random(1).randbytes(2**20)
        os.pwrite(descriptor, content, 0)
        before = used()
        punch_hole(descriptor, 4096, 4096)
        assert os.pread(descriptor, 2**21, 0) == content[:4096] + bytes(4096) + content[8192:]
        # btrfs gives extents back as a whole only
        punch_hole(descriptor, 0, 2**21)
        assert used() <= before - 2**20 // 2
        assert os.pread(descriptor, 2**21, 0) == bytes(2**20)


def test_a_hole_that_can_not_be_punched_is_an_error(tmp_path) -> None:
    with (tmp_path / "file").open("w+b") as file, pytest.raises(OSError, match="Invalid argument"):
        punch_hole(file.fileno(), 0, 0)


def test_folders_and_file_systems_can_be_synced(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    sync_file_system_of(tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    sync_file_system(descriptor)
    os.close(descriptor)

    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file_system(descriptor)


@pytest.mark.parametrize("size", [0, 1, 4096])
def test_a_regular_file_is_read_up_to_its_limit(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    assert read_file(tmp_path / "file", size) == b"x" * size
    if size:
        with pytest.raises(WrongFileError, match=f"it has {size} bytes, which is more than {size - 1}"):
            read_file(str(tmp_path / "file"), size - 1)


def test_a_length_that_a_file_only_claims_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 2**43)
    with pytest.raises(WrongFileError, match="more than 1024"):
        read_file(tmp_path / "file", 1024)


@pytest.mark.parametrize("make", WRONG, ids=str)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, make: str) -> None:
    WRONG[make](tmp_path / "file")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for read in (read_file, open_regular):
        with pytest.raises(WrongFileError, match="it is no regular file") as raised:
            read(tmp_path / "file")
        assert raised.value.filename == str(tmp_path / "file")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_link_is_followed_if_the_caller_says_so_and_leads_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", follow=True) == b"content"
    (tmp_path / "device").symlink_to("/dev/zero")
    with pytest.raises(WrongFileError):
        read_file(tmp_path / "device", follow=True)


def test_a_file_that_returns_less_at_a_time_is_read_as_a_whole(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: pread(descriptor, min(length, 7), offset))
    assert read_file(tmp_path / "file") == bytes(range(100))


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(os, "pread", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error") as raised:
        read_file(tmp_path / "file")
    assert raised.value.filename == str(tmp_path / "file")
    assert not isinstance(raised.value, WrongFileError)
