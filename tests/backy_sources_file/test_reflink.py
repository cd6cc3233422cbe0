"""Clones on real file systems."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.api import StorageError
from backy_sources_file import reflink

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


@pytest.mark.parametrize("kind", ABLE)
def test_what_can_clone_is_told_by_trying_and_nothing_is_left(mount, kind) -> None:
    folder = mount(kind)
    reflink.require_clones(folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("kind", ["ext4", "xfs without reflink"])
def test_what_can_not_clone_is_told_with_what_can(mount, kind) -> None:
    folder = mount(kind)
    before = list(folder.iterdir())
    with pytest.raises(StorageError, match=r"root lies on .* can not share blocks .* btrfs and XFS can"):
        reflink.require_clones(folder)
    assert list(folder.iterdir()) == before
