"""Images that are written to while they are backed up, on real file systems and devices."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, SourceError
from backy.backup.backup import Backup
from backy.integrity import quarantine
from backy.repository.config import JobConfig, SourceSection, VerifierSections
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT

CHUNKS = 3
# a machine that writes whenever it is told to
WRITER = """
import os, random, sys
with open(sys.argv[1], "r+b", buffering=0) as image:
    while sys.stdin.readline():
        image.seek(random.randrange(int(sys.argv[2])) * 4096)
        image.write(os.urandom(4096))
        print(flush=True)
"""


@contextmanager
def machine(path: Path) -> Iterator[Callable[[], None]]:
    """Run a process that writes a page whenever it is told to; return how to tell it."""
    command = [sys.executable, "-c", WRITER, path, str(CHUNKS * CHUNK_SIZE // 4096)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout

        alone = threading.Lock()

        def write() -> None:
            # told by several threads
            with alone:
                process.stdin.write(b"\n")
                process.stdin.flush()
                process.stdout.readline()

        yield write
        process.stdin.close()


KINDS = ["ext4", "xfs without reflink", "btrfs", "xfs", "device"]
FREEZING = {"btrfs", "xfs"}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(kind: str, mount: Callable[..., Path], loop_device: Callable[[Path], Path], tmp_path: Path) -> Path:
    """An image of a kind."""
    folder = tmp_path if kind == "device" else mount(kind, 300 * 2**20)
    path = folder / "disk.img"
    path.write_bytes(random.Random(1).randbytes(CHUNKS * CHUNK_SIZE))
    return loop_device(path) if kind == "device" else path


def repository_of(folder: Path, image: Path, verifier: str, **keys: str) -> Repository:
    source = SourceSection({"type": "file", "filename": str(image), **keys})
    config = JobConfig(format=FORMAT, source=source, verifier=VerifierSections.from_plain(verifier))
    return Repository.initialize(folder / f"{verifier}-{len(list(folder.iterdir()))}", config)


# with two of these nobody would compare what was written
MOMENTS = [("full", "backup"), ("none", "backup"), ("sample", "verify")]


def test_a_machine_that_runs_gives_a_frozen_image_or_none(kind: str, image: Path, tmp_path: Path) -> None:
    for verifier, phase in MOMENTS:
        repository = repository_of(tmp_path, image, verifier)
        before = image.read_bytes()
        with machine(image) as write:
            steps = _writing(phase, write)
            if kind in FREEZING:
                revision = Backup(repository, ("daily",), steps=steps).run()
                assert revision.consistency == "crash"
                assert content(repository) == before
            else:
                with pytest.raises(SourceError, match="written to while it was read") as raised:
                    Backup(repository, ("daily",), steps=steps).run()
                assert ("LVM" if kind == "device" else "btrfs or XFS") in str(raised.value)
                assert repository.records.survey() == ([], [])
        assert quarantine.count(repository.directory) == 0
    # the machine has stopped, so that there is nothing to freeze
    assert Backup(repository, ("daily",)).run().consistency == "crash"
    assert content(repository) == image.read_bytes()


def content(repository: Repository) -> bytes:
    with repository.image(repository.records.history()[-1]) as stored:
        return stored.pread(0, stored.size)


def _writing(phase: str, write: Callable[[], None]):
    """Write whenever a chunk was read in a phase."""
    return lambda step, _total: lambda _length: write() if step == phase else None


def test_what_is_torn_is_kept_if_that_is_accepted_and_called_so(kind, image, tmp_path, backy) -> None:
    for verifier in ["full", "sample", "changed", "none"] if kind == "ext4" else ["full"]:
        repository = repository_of(tmp_path, image, verifier, torn="accept")
        with machine(image) as write:
            steps = lambda _step, _total: lambda _length: write()  # noqa: E731  # one for each phase
            revision = Backup(repository, ("daily",), steps=steps).run()
        shown = backy("-b", repository.directory, "status").out
        assert revision.consistency == ("crash" if kind in FREEZING else "none")
        assert (f"{revision.id} is torn: its parts are of different times" in shown) == (kind not in FREEZING)
        # it is what was read, and nobody calls it damaged
        assert quarantine.count(repository.directory) == 0
        assert backy("-b", repository.directory, "verify", "-r", revision.id).code == 0
        restored = backy("-b", repository.directory, "restore", "--force", tmp_path / "restored")
        assert restored.code == 0
        assert (f"WARNING: revision {revision.id} is torn" in restored.err) == (kind not in FREEZING)


def test_a_frozen_file_can_be_read_as_it_lies_there(mount: Callable[..., Path], tmp_path: Path) -> None:
    image = mount("btrfs", 300 * 2**20) / "disk.img"
    image.write_bytes(os.urandom(CHUNK_SIZE))
    repository = repository_of(tmp_path, image, "none", freeze="off")
    with machine(image) as write, pytest.raises(SourceError, match="written to"):
        Backup(repository, ("daily",), steps=_writing("backup", write)).run()
    assert Backup(repository, ("daily",)).run().consistency == "crash"
