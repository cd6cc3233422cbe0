"""Extents of real files."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy import extents
from backy.api import Extent
from backy.extents import Mapped
from backy_sources_file import fiemap, reflink
from backy_sources_file.fiemap import UNWRITTEN

ABLE = ["btrfs", "xfs"]
BLOCK = 4096


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("kind", ABLE)
def test_more_extents_than_are_asked_for_at_a_time_are_all_told_in_order(mount, kind) -> None:
    count = 203
    with opened(mount(kind) / "file") as descriptor:
        for index in range(count):
            os.pwrite(descriptor, b"x" * BLOCK, 2 * index * BLOCK)
        # XFS allocates more than it was asked for
        found = [extent for extent in extents.mapped(descriptor, 100) if not extent.flags & UNWRITTEN]

    assert [(extent.offset, extent.length) for extent in found] == [(2 * n * BLOCK, BLOCK) for n in range(count)]
    assert len({extent.physical for extent in found}) == count


@pytest.mark.parametrize("kind", ABLE)
def test_what_was_never_written_and_what_lies_beyond_the_end_is_told_as_such(mount, kind) -> None:
    path = mount(kind) / "file"
    with opened(path) as descriptor:
        os.pwrite(descriptor, b"x" * BLOCK, 0)
        subprocess.run(["fallocate", "--keep-size", "--offset", "0", "--length", "64KiB", path], check=True)
        found = list(extents.mapped(descriptor))

    assert [(extent.offset, extent.length) for extent in found] == [(0, BLOCK), (BLOCK, 15 * BLOCK)]
    assert [extent.flags & UNWRITTEN for extent in found] == [0, UNWRITTEN]


def test_an_empty_file_has_no_extents(mount) -> None:
    with opened(mount("xfs") / "file") as descriptor:
        assert list(extents.mapped(descriptor)) == []


def test_where_extents_are_not_told_that_is_an_error() -> None:
    with Path("/proc/version").open() as stream, pytest.raises(OSError, match=r"not supported|Inappropriate"):
        list(extents.mapped(stream.fileno()))


@pytest.mark.parametrize(
    "answer", [[Mapped(0, BLOCK, 0, 0), Mapped(0, BLOCK, 0, 0)], [Mapped(0, 0, 0, 0)]], ids=["backwards", "empty"]
)
def test_an_answer_that_leads_nowhere_is_an_error(answer, monkeypatch, tmp_path) -> None:
    def ioctl(_descriptor, _number, buffer):
        extents._HEADER.pack_into(buffer, 0, 0, 0, 0, len(answer), 0, 0)
        for number, extent in enumerate(answer):
            packed = (extent.offset, extent.physical, extent.length, extent.flags)
            extents._EXTENT.pack_into(buffer, extents._HEADER.size + number * extents._EXTENT.size, *packed)

    monkeypatch.setattr(extents.fcntl, "ioctl", ioctl)
    with opened(tmp_path / "file") as descriptor, pytest.raises(ValueError, match="an extent of"):
        list(extents.mapped(descriptor))


@pytest.mark.parametrize("kind", ABLE)
def test_exactly_the_pages_that_were_written_differ(mount, kind) -> None:
    folder = mount(kind)
    chance = random.Random(3)
    with opened(folder / "image") as image, opened(folder / "old") as old, opened(folder / "new") as new:
        os.pwrite(image, chance.randbytes(64 * 2**20), 0)
        reflink.clone(image, old)
        pages = sorted(chance.sample(range(0, 16384, 2), 262))
        for page in pages:
            os.pwrite(image, chance.randbytes(BLOCK), page * BLOCK)
        reflink.clone(image, new)
        assert fiemap.changes(old, new) == [Extent(page * BLOCK, BLOCK, data=True) for page in pages]
        assert fiemap.changes(new, new) == []


def test_extents_that_are_moved_between_two_looks_are_noticed(mount, monkeypatch) -> None:
    folder = mount("btrfs")
    with opened(folder / "old") as old, opened(folder / "new") as new:
        for index in range(64):
            os.pwrite(old, b"x" * BLOCK, index * BLOCK)
            os.fsync(old)
        reflink.clone(old, new)
        compare = fiemap.differences

        def meanwhile(*arguments):
            yield from compare(*arguments)
            subprocess.run(["btrfs", "balance", "start", "-d", folder], check=True, capture_output=True)

        assert fiemap.changes(old, new) == []
        monkeypatch.setattr(fiemap, "differences", meanwhile)
        with pytest.raises(ValueError, match="its extents are being moved"):
            fiemap.changes(old, new)
        monkeypatch.undo()
        assert fiemap.changes(old, new) == []
