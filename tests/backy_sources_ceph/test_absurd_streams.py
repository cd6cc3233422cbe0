"""Streams of a few bytes that claim to be of images larger than any."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import LARGEST_IMAGE, Extent
from backy.repository.repository import Repository
from backy_import_diff.stream import opened_stream


@pytest.mark.parametrize("size", [LARGEST_IMAGE + 1, 2**50])
def test_a_stream_of_22_bytes_that_claims_an_absurd_size_is_refused_in_one_line(
    repository: Repository, backy: Callable, tmp_path: Path, size: int
) -> None:
    stream = tmp_path / "diff"
    stream.write_bytes(b"rbd diff v1\n" + struct.pack("<cQ", b"s", size) + b"e")
    assert stream.stat().st_size == 22
    done = backy("-b", repository.directory, "import-diff", stream)
    assert (done.code, done.err) == (1, f"Error: the image has {size} bytes, which is more than {LARGEST_IMAGE}\n")
    assert repository.records.ids() == set()


def test_a_large_image_without_data_takes_no_time(tmp_path: Path) -> None:
    (tmp_path / "diff").write_bytes(b"rbd diff v1\n" + struct.pack("<cQ", b"s", LARGEST_IMAGE) + b"e")
    with opened_stream(str(tmp_path / "diff"), tmp_path) as stream:
        begun = time.process_time()
        assert list(stream.snapshot(None).extents()) == [Extent(0, LARGEST_IMAGE, data=False)]
        assert time.process_time() - begun < 5
