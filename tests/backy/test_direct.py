"""Writing past the page cache on real file systems: one that can, and others that say no in different ways."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.direct import ALIGNMENT, SMALLEST, DirectWriter, reopened, switched
from backy.durable import pwrite_all


def write(descriptor: int, direct: int | None, data: bytes, offset: int) -> int:
    written = DirectWriter().pwrite(direct, data, offset)
    pwrite_all(descriptor, data[written:], offset + written)
    return written


@pytest.mark.parametrize("kind", ["btrfs", "btrfs zstd", "xfs"])
def test_whole_blocks_go_past_the_cache_and_an_odd_end_through_it(mount, kind) -> None:
    data = os.urandom(SMALLEST + 777)
    with (mount(kind) / "file").open("w+b") as file, reopened(file.fileno()) as direct:
        assert write(file.fileno(), direct, data, ALIGNMENT) == SMALLEST
        assert os.pread(file.fileno(), 2 * len(data), 0) == bytes(ALIGNMENT) + data


@pytest.mark.parametrize("kind", ["btrfs", "btrfs zstd", "xfs"])
def test_a_descriptor_is_direct_for_a_while(mount, kind) -> None:
    data = os.urandom(2 * SMALLEST + 1)
    with (mount(kind) / "file").open("w+b") as file:
        with switched(file.fileno()) as direct:
            written = DirectWriter().pwrite(direct, data, 0)
        assert written == 2 * SMALLEST
        pwrite_all(file.fileno(), data[written:], written)  # an odd end, which O_DIRECT would not take
        assert os.pread(file.fileno(), 2 * len(data), 0) == data


def test_a_read_only_file_that_is_being_made_can_be_switched(mount) -> None:
    descriptor = os.open(mount("xfs") / "file", os.O_WRONLY | os.O_CREAT, 0o440)
    try:
        with switched(descriptor) as direct:
            assert DirectWriter().pwrite(direct, bytes(SMALLEST), 0) == SMALLEST
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(("length", "offset"), [(SMALLEST - 1, 0), (SMALLEST, 512), (0, 0)])
def test_little_and_what_is_not_aligned_is_left_to_the_cache(mount, length: int, offset: int) -> None:
    with (mount("xfs") / "file").open("w+b") as file, reopened(file.fileno()) as direct:
        assert direct is not None
        assert DirectWriter().pwrite(direct, bytes(length), offset) == 0


def test_what_knows_no_direct_access_is_written_all_the_same() -> None:
    reading, writing = os.pipe()
    try:
        with reopened(reading) as direct:
            assert direct is None
        assert DirectWriter().pwrite(None, bytes(SMALLEST), 0) == 0
    finally:
        os.close(reading)
        os.close(writing)


def test_a_file_system_may_refuse_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    with (tmp_path / "file").open("w+b") as file:
        monkeypatch.setattr(os, "pwrite", refuse)
        assert DirectWriter().pwrite(file.fileno(), bytes(SMALLEST), 0) == 0


def test_an_error_of_the_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with (tmp_path / "file").open("w+b") as file:
        monkeypatch.setattr(os, "pwrite", fail)
        with pytest.raises(OSError, match="Input/output error"):
            DirectWriter().pwrite(file.fileno(), bytes(SMALLEST), 0)


@given(pieces=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 3 * SMALLEST)), min_size=1, max_size=6))
def test_both_ways_into_a_file_agree(tmp_path_factory, pieces: list[tuple[int, int]]) -> None:
    path = tmp_path_factory.mktemp("direct") / "file"
    expected = bytearray()
    try:
        with path.open("w+b") as file, reopened(file.fileno()) as direct:
            for number, (page, length) in enumerate(pieces):
                data = bytes([number + 1]) * length
                end = page * ALIGNMENT + length
                expected.extend(bytes(max(end - len(expected), 0)))
                expected[page * ALIGNMENT : end] = data
                write(file.fileno(), direct, data, page * ALIGNMENT)
            assert os.pread(file.fileno(), len(expected) + 1, 0) == expected
    finally:
        path.unlink()
