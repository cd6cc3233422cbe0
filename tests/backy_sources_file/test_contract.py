from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backy.testing.images import write_image
from backy.testing.source_contract import SourceContract, SourceUnderTest


def written(path: Path) -> Callable[[int, bytes], None]:
    def write(offset: int, data: bytes) -> None:
        with path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(data)

    return write


def image_file(path: Path, **more: Any) -> SourceUnderTest:
    return SourceUnderTest(
        "file",
        str(path),
        path.read_bytes,
        write=written(path),
        resize=lambda size: os.truncate(path, size),
        remove=path.unlink,
        **more,
    )


class TestImageFile(SourceContract):
    @pytest.fixture
    def subject(self, backy_image: Callable[..., Path]) -> SourceUnderTest:
        path = backy_image(1, None, 2, tail=5000)
        return image_file(path, wrong_argument="")


class TestFrozenFile(SourceContract):
    @pytest.fixture(params=[("xfs", "during-backup"), ("btrfs", "keep"), ("btrfs zstd", "keep"), ("xfs", "keep")])
    def subject(self, request: pytest.FixtureRequest, mount: Callable[..., Path]) -> SourceUnderTest:
        kind, freeze = request.param
        path = write_image(mount(kind, 300 * 2**20) / "disk.img", 1, None, 2, tail=5000)
        return image_file(path, frozen=True, options={"freeze": freeze})


class TestBlockDevice(SourceContract):
    @pytest.fixture
    def subject(self, backy_image: Callable[..., Path], loop_device: Callable[[Path], Path]) -> SourceUnderTest:
        device = loop_device(backy_image(1, None, 2, tail=4096))
        return SourceUnderTest("file", str(device), device.read_bytes, write=written(device), wrong_argument="")
