"""Machines of a real QEMU."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, Job, Source
from backy.config import typed
from backy.debian import MissingModuleError
from backy_sources_qemu import export, monitor
from backy_sources_qemu.config import QemuConfig
from backy_sources_qemu.disks import QemuSource
from tests.virtual import NODES, Server, Virtual

SIZE = 3 * CHUNK_SIZE + 65536


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as those of sockets have to be, in which everybody may look."""
    with tempfile.TemporaryDirectory(prefix="backy-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture(autouse=True)
def _what_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have libnbd, or skip; and leave no locks of machines that were made for a test in /run."""
    try:
        export.libnbd()
    except MissingModuleError as error:
        pytest.skip(f"NOT TESTED: sources that need libnbd: {error}")
    monkeypatch.setattr(monitor, "_RUN", folder)


@pytest.fixture
def image_format() -> str:
    """The format of the image, which tests may parametrize."""
    return "qcow2"


@pytest.fixture(scope="session")
def started() -> Iterator[Callable[[str], Virtual]]:
    """Make the machines that tests share, one for each format of images."""
    for program in ("qemu-system-x86_64", "qemu-img", "qemu-nbd"):
        if shutil.which(program) is None:
            pytest.skip(f"NOT TESTED: disks of QEMU, for {program} is missing")
    made: dict[str, Virtual] = {}
    with tempfile.TemporaryDirectory(prefix="backy-") as folder:

        def start(image_format: str) -> Virtual:
            if image_format not in made:
                Path(folder, image_format).mkdir()
                made[image_format] = Virtual(Path(folder, image_format), image_format, SIZE)
            return made[image_format]

        yield start
        for machine in made.values():
            machine.end()


@pytest.fixture
def machine(started: Callable[[str], Virtual], image_format: str) -> Iterator[Virtual]:
    """A running machine, with data at both ends of its disk and around the edge of a chunk."""
    made = started(image_format)
    chance = random.Random(1)
    places = ((0, 9728), (CHUNK_SIZE - 4608, 9728), (SIZE - 5120, 5120))
    made.reset(SIZE, *((offset, chance.randbytes(length)) for offset, length in places))
    yield made
    # whatever a test was about, backy leaves nothing behind
    if made.is_running:
        left = set(made.nodes())
        if left != NODES:
            made.end()
        assert left == NODES
        assert made.command("query-block-exports") == []


@pytest.fixture
def source_of() -> Callable[..., Source]:
    """Make the source of a machine as `source_of(machine, **keys)`."""

    def make(machine: Virtual, **keys: object) -> Source:
        config = typed({"type": "qemu", "qmp": str(machine.qmp), "node": "disk", **keys}, QemuConfig, "source")
        return QemuSource(config, Job("web1", f"job-of-{config.node}", Path("/nowhere")))

    return make


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Server]]:
    """Start an NBD server, as `serve(program, *words)`."""
    servers: list[Server] = []

    def start(*command: str | Path) -> Server:
        servers.append(Server(folder, *command))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def image_of() -> Callable[..., Path]:
    """Make the image of a machine that is shut down, as `image_of(folder, format)`; `behind` puts another behind it."""

    def make(folder: Path, image_format: str, *, behind: bool = False) -> Path:
        path, below = folder / f"disk.{image_format}", folder / "below.raw"
        below.write_bytes(random.Random(1).randbytes(CHUNK_SIZE + 512) if behind else b"")
        os.truncate(below, SIZE)
        options = ["-b", below, "-F", "raw"] if behind else []
        subprocess.run(["qemu-img", "create", "-q", "-f", image_format, *options, path, str(SIZE)], check=True)
        writes = ["-c", f"write -P 7 {2 * CHUNK_SIZE} 64k", "-c", "write -P 7 512 1k"]
        subprocess.run(["qemu-io", "-f", image_format, *writes, path], check=True, capture_output=True)
        return path

    return make
