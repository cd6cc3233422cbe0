"""A chunked repository whose image is a file, so that real commands can work on it, too."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.image.stored import ChunkMap
from backy.repository.config import JobConfig, SourceSection, StorageSection
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.sealed import FORMAT
from backy.testing.laboratory import Laboratory, patterned
from backy_storages_chunked.files import parse_name

MEMORY = Path("/dev/shm")


@dataclass
class Lab(Laboratory):
    """A laboratory with a source `file`. `boot` names the time since the machine was started."""

    boot: str = "first"
    drawn: tuple = ()
    """The chunks of the image that the newest revision has."""

    @property
    def image(self) -> Path:
        return self.directory.with_name("disk.img")

    def draw(self, *chunks: tuple[int, ...] | None, tail: int = 0) -> None:
        """Make the image anew, of what `patterned` makes of each tuple, or of holes."""
        with self.image.open("wb") as stream:
            for arguments in chunks:
                stream.seek(CHUNK_SIZE, 1) if arguments is None else stream.write(patterned(*arguments))
            stream.write(random.Random(99).randbytes(tail))
            stream.truncate(len(chunks) * CHUNK_SIZE + tail)
        self.content = self.image.read_bytes()

    def initialize(self, durability: str = "filesystem") -> None:
        storage = {**self.storage, "durability": durability}
        source = {"type": "file", "filename": str(self.image)}
        Repository.initialize(
            self.directory, JobConfig(format=FORMAT, source=SourceSection(source), storage=StorageSection(storage))
        )

    def open(self, durability: str | None = None) -> Repository:
        """Open it, by another durability than the job's if one is named."""
        repository = Repository.open(self.directory)
        if durability is not None:
            repository.config.storage["durability"] = durability
        return repository

    def backup(self, durability: str | None = None) -> Revision:
        return super().backup() if durability is None else self.back_up(self.open(durability))

    def distrust(self) -> None:
        repository = self.open()
        for revision in repository.records.history():
            repository.records.write_state(revision.changed(distrusted=True))

    def nothing_left_over(self) -> None:
        """What holds for all storages, and no chunk that nobody needs."""
        super().nothing_left_over()
        maps = self.directory.glob("*.map")
        live = set().union(*(ChunkMap.decode(path.read_bytes()).distinct() for path in maps))
        files = [parse_name(path.name) for path in self.directory.glob("chunks/??/*")]
        assert None not in files
        bases = {file.base for file in files if file.base and file.chunk_id in live}
        assert not [file for file in files if file.chunk_id not in live and (file.base or file.chunk_id not in bases)]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Callable) -> Iterator[Lab]:
    """A lab, in memory where that can be had: thousands of states are written there."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as folder:
        lab = Lab(Path(folder) / "vm", clock, {"type": "chunked"})
        for module in ("testing.laboratory", "backup.backup", "backup.transfer"):
            monkeypatch.setattr(f"backy.{module}.boot_id", lambda: lab.boot)
        yield lab


@pytest.fixture
def history() -> Callable[[Lab, str], None]:
    """Fill a lab: two synced revisions, deltas, bases that only deltas need, and an image that tries everything."""

    def fill(lab: Lab, durability: str) -> None:
        lab.draw((0,), None, (100,), tail=5000)
        lab.initialize(durability)
        lab.backup("filesystem")
        lab.draw((0, 1), (200,), (100, 2), tail=5000)
        lab.backup("filesystem")
        lab.forget("1")
        lab.drawn = ((0, 3), (200,), (100, 2))
        lab.draw(*lab.drawn, tail=5000)
        lab.backup("filesystem")
        # a delta, two bases as chunks of their own again, a hole, the same twice, and another length
        lab.draw((0, 4), (0,), None, (100,), (200, 5), (0,), tail=9000)

    return fill
