from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from backy.durable import (
    READ_ONLY,
    replace_link,
    sync_file_system,
    sync_file_system_of,
    sync_folder,
    write_all,
    write_file,
)


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


def test_folders_and_file_systems_can_be_synced(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    sync_file_system_of(tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    sync_file_system(descriptor)
    os.close(descriptor)

    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file_system(descriptor)
