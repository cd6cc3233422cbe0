"""Clones on real file systems."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy import reflink
from backy.api import StorageError

ABLE = ["btrfs", "btrfs zstd", "xfs"]


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def used(folder: Path) -> int:
    """Bytes that are in use on the file system."""
    subprocess.run(["sync", "--file-system", folder], check=True)
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.mark.parametrize("kind", ABLE)
def test_a_clone_shares_what_is_not_written_and_never_changes_its_origin(mount, kind) -> None:
    folder = mount(kind)
    content = random.Random(1).randbytes(32 * 2**20)
    (folder / "origin").write_bytes(content)
    before = used(folder)
    with opened(folder / "origin") as origin, opened(folder / "clone") as clone:
        reflink.clone(origin, clone)
        chance = random.Random(2)
        for _ in range(150):
            os.pwrite(clone, chance.randbytes(4096), chance.randrange(8192) * 4096)

    assert used(folder) - before < 3 * 150 * 4096
    assert (folder / "origin").read_bytes() == content
    assert (folder / "clone").stat().st_size == len(content)


@pytest.mark.parametrize("in_place", ["origin", "clone"])
def test_a_clone_is_written_in_place_like_its_origin(mount, in_place) -> None:
    folder = mount("btrfs")
    (folder / in_place).touch()
    subprocess.run(["chattr", "+C", folder / in_place], check=True)
    (folder / "origin").write_bytes(b"content")
    with opened(folder / "origin") as origin, opened(folder / "clone") as clone:
        reflink.clone(origin, clone)
        assert reflink.is_no_cow(clone) == reflink.is_no_cow(origin) == (in_place == "origin")
    assert (folder / "clone").read_bytes() == b"content"


@pytest.mark.parametrize("kind", [*ABLE, "ext4"])
def test_a_punched_hole_reads_as_zeroes_and_frees_its_blocks(mount, kind) -> None:
    folder = mount(kind)
    with opened(folder / "file") as descriptor:
        content = random.Random(1).randbytes(2**20)
        os.pwrite(descriptor, content, 0)
        before = used(folder)
        reflink.punch_hole(descriptor, 4096, 4096)
        assert os.pread(descriptor, 2**21, 0) == content[:4096] + bytes(4096) + content[8192:]
        # btrfs gives extents back as a whole only
        reflink.punch_hole(descriptor, 0, 2**21)
        assert used(folder) <= before - 2**20 // 2
        assert os.pread(descriptor, 2**21, 0) == bytes(2**20)


def test_a_hole_that_can_not_be_punched_is_an_error(tmp_path) -> None:
    with opened(tmp_path / "file") as descriptor, pytest.raises(OSError, match="Invalid argument"):
        reflink.punch_hole(descriptor, 0, 0)


@pytest.mark.parametrize("kind", ABLE)
def test_what_can_clone_is_told_by_trying_and_nothing_is_left(mount, kind) -> None:
    folder = mount(kind)
    reflink.require_clones(folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("kind", ["ext4", "xfs without reflink"])
def test_what_can_not_clone_is_told_with_what_can(mount, kind) -> None:
    folder = mount(kind)
    before = list(folder.iterdir())
    with pytest.raises(StorageError, match=r"root lies on .* can not share blocks .* btrfs can, .* XFS made with"):
        reflink.require_clones(folder)
    assert list(folder.iterdir()) == before
