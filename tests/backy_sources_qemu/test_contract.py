"""The contract of sources: disks of running machines, images of others, and exports."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.testing.source_contract import SourceContract, SourceUnderTest
from tests.virtual import Server, Virtual


class TestRunning(SourceContract):
    @pytest.fixture
    def subject(self, machine: Virtual) -> SourceUnderTest:
        def write(offset: int, data: bytes) -> None:
            # devices write whole sectors
            start = offset - offset % 512
            end = -(-(offset + len(data)) // 512) * 512
            sectors = bytearray(machine.content()[start:end])
            sectors[offset - start : offset - start + len(data)] = data
            machine.write(start, bytes(sectors))

        return SourceUnderTest(
            "qemu",
            f"{machine.qmp},disk",
            machine.content,
            write=write,
            resize=machine.resize,
            remove=machine.end,
            frozen=True,
            wrong_argument="disk",
        )


class TestShutDown(SourceContract):
    """A qcow2 image with another behind it."""

    @pytest.fixture
    def subject(self, folder: Path, image_of: Callable[..., Path]) -> SourceUnderTest:
        path = image_of(folder, "qcow2", behind=True)
        return SourceUnderTest(
            "qemu",
            str(path),
            lambda: content(path),
            write=lambda offset, data: write(path, offset, data),
            resize=lambda size: run("resize", "--shrink", path, str(size)),
            remove=path.unlink,
            wrong_argument="disk",
        )


class TestNbd(SourceContract):
    @pytest.fixture
    def subject(self, folder: Path, serve: Callable[..., Server]) -> SourceUnderTest:
        path = folder / "exported"
        chance = random.Random(1)
        path.write_bytes(chance.randbytes(CHUNK_SIZE + 5000))
        with path.open("r+b") as stream:
            stream.truncate(3 * CHUNK_SIZE + 5632)

        def write_at(offset: int, data: bytes) -> None:
            with path.open("r+b") as stream:
                stream.seek(offset)
                stream.write(data)

        # this server insists on whole blocks, as those of block devices may do
        policy = ["--filter=blocksize-policy", "blocksize-minimum=512", "blocksize-error-policy=error"]
        server = serve("nbdkit", policy[0], "file", path, *policy[1:])
        return SourceUnderTest(
            "nbd", server.uri, path.read_bytes, write=write_at, remove=server.end, wrong_argument="http://server"
        )


def run(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def content(path: Path) -> bytes:
    run("convert", "-O", "raw", path, path.with_name("content"))
    return path.with_name("content").read_bytes()


def write(path: Path, offset: int, data: bytes) -> None:
    source = path.with_name("data")
    source.write_bytes(data)
    command = f"write -s {source} {offset} {len(data)}"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, path], check=True, capture_output=True)
