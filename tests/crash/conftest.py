"""A repository whose every change can be recorded, and what must be true of it whatever happens."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from backy.api import CHUNK_SIZE, PAGE_SIZE
from backy.backup import Backup
from backy.chunkmap import ChunkMap
from backy.config import JobConfig
from backy.locking import BACKUP_LOCK, exclusive
from backy.purging import purge
from backy.referenced import relied_upon
from backy.repository import Repository
from backy.revision import FORMAT, Revision, Trust
from backy.storage.chunked.files import parse_name
from backy.testing.recording import Fault, Recording, record
from backy.testing.tree import Tree

MEMORY = Path("/dev/shm")


def pages(first: int, changed: int | None = None) -> tuple[int, ...]:
    """Sixteen kinds of pages, which a chunk repeats; one of them is another if `changed` says so."""
    seeds = list(range(first, first + 16))
    return (*seeds, first + 1000 + changed) if changed is not None else tuple(seeds)


def chunk(seeds: tuple[int, ...]) -> bytes:
    """A chunk that compresses to 64 KiB. The seventeenth page, if there is one, is there once."""
    content = [random.Random(seed).randbytes(PAGE_SIZE) for seed in seeds]
    data = b"".join(content[:16]) * (CHUNK_SIZE // PAGE_SIZE // 16)
    if len(content) > 16:
        position = (seeds[16] % 1000) * PAGE_SIZE
        data = data[:position] + content[16] + data[position + PAGE_SIZE :]
    return data


@dataclass
class Lab:
    """A repository and its image. `boot` names the time since the machine was started."""

    directory: Path
    image: Path
    clock: Callable
    boot: str = "first"
    expected: dict[str, bytes] = field(default_factory=dict)
    """Digests of the images, by the revisions' ids."""
    promises: list[tuple[int, str, str]] = field(default_factory=list)
    """What must be true after so many operations: ("kept" or "open" or "gone", id)."""
    recording: Recording | None = None
    drawn: tuple = ()
    """The chunks of the image that the newest revision has."""

    def draw(self, *chunks: tuple[int, ...] | None, tail: int = 0) -> None:
        """Make the image anew."""
        with self.image.open("wb") as stream:
            for seeds in chunks:
                stream.seek(CHUNK_SIZE, 1) if seeds is None else stream.write(chunk(seeds))
            stream.write(random.Random(99).randbytes(tail))
            stream.truncate(len(chunks) * CHUNK_SIZE + tail)

    def initialize(self, durability: str) -> None:
        """Make the repository."""
        config = JobConfig(
            format=FORMAT,
            source={"type": "file", "filename": str(self.image)},
            storage={"type": "chunked", "durability": durability},
        )
        Repository.initialize(self.directory, config)

    def digest(self) -> bytes:
        """The digest of the image as it is now."""
        return blake3(self.image.read_bytes()).digest()

    def promise(self, kind: str, identity: str) -> None:
        self.promises.append((len(self.recording.operations) if self.recording else 0, kind, identity))

    def backup(self, durability: str | None = None) -> Revision:
        """Make a revision, by another durability than the job's if one is named."""
        repository = Repository.open(self.directory)
        if durability is not None:
            repository.config.storage["durability"] = durability
        revision = Backup(repository, ("test",), clock=self.clock).run()
        self.expected[revision.id] = self.digest()
        self.promise("open" if revision.boot else "kept", revision.id)
        return revision

    def forget(self, specification: str) -> None:
        repository = Repository.open(self.directory)
        identity = repository.select(specification).id
        self.promise("open", identity)
        with exclusive(repository.directory, BACKUP_LOCK):
            repository.forget(identity, repository.storage())
        self.promise("gone", identity)

    def distrust(self) -> None:
        repository = Repository.open(self.directory)
        for revision in repository.history():
            repository.write_record(msgspec.structs.replace(revision, trust=Trust.DISTRUSTED))

    def purge(self) -> None:
        purge(Repository.open(self.directory))

    def record(self, action: Callable[[], object], fault: Fault | None = None) -> Recording:
        """Do something while it is recorded; a `fault` may end it."""
        with record(self.directory, fault) as self.recording:
            try:
                action()
            except OSError:
                if fault is None:
                    raise
        recording, self.recording = self.recording, None
        return recording

    def put(self, tree: Tree) -> None:
        """Replace what is in the directory."""
        shutil.rmtree(self.directory, ignore_errors=True)
        tree.write(self.directory)

    # what must be true ------------------------------------------------------------------------------------------------

    def state(self, after: int) -> dict[str, str]:
        """What is promised of each revision after so many operations."""
        return {identity: kind for when, kind, identity in self.promises if when <= after}

    def check(self, state: dict[str, str]) -> None:
        """Everything promised is true, and whatever else happens next is as if nothing had happened."""
        repository = Repository.open(self.directory)
        history = {revision.id: revision for revision in repository.history()}
        kept = {identity for identity, kind in state.items() if kind == "kept"}
        assert kept <= history.keys()
        assert not {identity for identity, kind in state.items() if kind == "gone"} & history.keys()
        trusted = kept | {identity for identity, revision in history.items() if relied_upon(revision)}
        self.read_back(repository, trusted)

        revision = Backup(repository, ("next",), clock=self.clock).run()
        self.expected[revision.id] = self.digest()
        purge(repository)
        self.read_back(repository, trusted | {revision.id})
        self.nothing_left_over()
        assert (self.directory / "last.rev").readlink() == Path(f"{revision.id}.rev")

    def read_back(self, repository: Repository, identities: set[str]) -> None:
        for identity in identities:
            digest = blake3()
            with repository.image(repository.record(identity)) as image:
                for index in range(len(image.chunks)):
                    digest.update(image.chunk(index))
            assert digest.digest() == self.expected[identity], identity

    def nothing_left_over(self) -> None:
        """No temporary file, no map without a record, no chunk that nobody needs."""
        assert not [path for path in self.directory.rglob("*") if path.name == "tmp" or path.suffix == ".tmp"]
        maps = list(self.directory.glob("*.map"))
        assert {path.stem for path in maps} == {
            path.stem for path in self.directory.glob("*.rev") if not path.is_symlink()
        }
        live = set().union(*(ChunkMap.decode(path.read_bytes()).distinct() for path in maps))
        files = [parse_name(path.name) for path in self.directory.glob("chunks/??/*")]
        assert None not in files
        bases = {file.base for file in files if file.base and file.identity in live}
        assert not [file for file in files if file.identity not in live and (file.base or file.identity not in bases)]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Callable) -> Iterator[Lab]:
    """A lab, in memory where that can be had: thousands of states are written there."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as folder:
        lab = Lab(Path(folder) / "vm", Path(folder) / "disk.img", clock)
        for module in ("referenced", "backup"):
            monkeypatch.setattr(f"backy.{module}.boot_id", lambda: lab.boot)
        yield lab


@pytest.fixture
def history() -> Callable[[Lab, str], None]:
    """Fill a lab: two synced revisions, deltas, bases that only deltas need, and an image that tries everything."""

    def fill(lab: Lab, durability: str) -> None:
        lab.draw(pages(0), None, pages(100), tail=5000)
        lab.initialize(durability)
        lab.backup("filesystem")
        lab.draw(pages(0, 1), pages(200), pages(100, 2), tail=5000)
        lab.backup("filesystem")
        lab.forget("1")
        lab.drawn = (pages(0, 3), pages(200), pages(100, 2))
        lab.draw(*lab.drawn, tail=5000)
        lab.backup("filesystem")
        # a delta, two bases as chunks of their own again, a hole, the same twice, and another length
        lab.draw(pages(0, 4), pages(0), None, pages(100), pages(200, 5), pages(0), tail=9000)
        lab.promises[:] = [(0, kind, identity) for _, kind, identity in lab.promises]

    return fill
