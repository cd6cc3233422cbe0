from __future__ import annotations

import random

import pytest

from backy.api import CHUNK_SIZE
from backy.testing.source_contract import SourceContract, SourceUnderTest


class TestCephRbd(SourceContract):
    @pytest.fixture
    def subject(self, disks, monkeypatch: pytest.MonkeyPatch) -> SourceUnderTest:
        import rbd

        disk = disks(3 * CHUNK_SIZE + 5000)
        monkeypatch.setenv("CEPH_CONF", str(disk.cluster.configuration))
        disk.write(0, random.Random(1).randbytes(CHUNK_SIZE))
        disk.write(2 * CHUNK_SIZE, random.Random(2).randbytes(CHUNK_SIZE + 5000))

        def content() -> bytes:
            with disk.opened() as image:
                return image.read(0, image.size())

        def resize(size: int) -> None:
            with disk.opened() as image:
                image.resize(size)

        return SourceUnderTest(
            "ceph-rbd",
            f"{disk.pool}/{disk.name}",
            content,
            write=disk.write,
            resize=resize,
            remove=lambda: rbd.RBD().remove(disk.ioctx, disk.name),
            frozen=True,
            wrong_argument="disk",
        )
