"""Whatever is written, forgotten and purged, in any order: each revision reads back exactly, and nothing else stays."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from backy.api import CHUNK_SIZE, PAGE_SIZE
from backy.backup.backup import Backup
from backy.groups.forget import forget
from backy.plugins.events import Events
from backy.repository.config import JobConfig, SourceSection, StorageSection
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from backy.retention.purge import purge
from backy_storages_chunked.files import parse_name
from backy_storages_chunked.pool import POOL, SWEPT

PAGES = CHUNK_SIZE // PAGE_SIZE
MEMORY = Path("/dev/shm")
KINDS = st.integers(0, 5)
"""Few kinds of content, so that it repeats; 0 is zeroes."""
SIZES = st.sampled_from([0, 1, 5000, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + PAGE_SIZE, 2 * CHUNK_SIZE + 777])


def page(kind: int) -> bytes:
    return bytes([kind]) * PAGE_SIZE


def chunk(kind: int) -> bytes:
    """Content of a kind that does not shrink to nothing, so that deltas are worth while."""
    return (
        bytes(CHUNK_SIZE)
        if not kind
        else b"".join(i.to_bytes(3, "big") + bytes([kind]) for i in range(PAGES)) * (PAGE_SIZE // 4)
    )


class Store(RuleBasedStateMachine):
    """A repository beside a dictionary of images."""

    options: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.source = self.folder / "disk.img"
        self.image = bytearray()
        self.revisions: dict[str, bytes] = {}
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.repository = self.made("vm")

    def made(self, name: str) -> Repository:
        """Make a repository."""
        source, storage = {"type": "file", "filename": str(self.source)}, {"type": "chunked", **self.options}
        sections = {"source": SourceSection(source), "storage": StorageSection(storage)}
        return Repository.initialize(self.folder / name, JobConfig(format=FORMAT, **sections))

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def clock(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    # what a guest does ------------------------------------------------------------------------------------------------

    @rule(size=SIZES)
    def resize(self, size: int) -> None:
        self.image = self.image[:size].ljust(size, b"\0")

    @rule(number=st.integers(0, 2), kind=KINDS)
    def write_chunk(self, number: int, kind: int) -> None:
        self.write(number * CHUNK_SIZE, chunk(kind))

    @rule(number=st.integers(0, 2), at=st.sampled_from([0, 1, 500, PAGES - 1]), kind=KINDS)
    def write_page(self, number: int, at: int, kind: int) -> None:
        self.write(number * CHUNK_SIZE + at * PAGE_SIZE, page(kind))

    @rule(number=st.integers(0, 2), count=st.sampled_from([200, 700]), kind=KINDS)
    def write_many_pages(self, number: int, count: int, kind: int) -> None:
        self.write(number * CHUNK_SIZE, page(kind) * count)

    def write(self, offset: int, content: bytes) -> None:
        content = content[: max(len(self.image) - offset, 0)]
        self.image[offset : offset + len(content)] = content

    # what backy does --------------------------------------------------------------------------------------------------

    @rule()
    def backup(self) -> None:
        self.source.write_bytes(b"")
        with self.source.open("r+b") as stream:
            for offset in range(0, len(self.image), PAGE_SIZE * 16):
                piece = self.image[offset : offset + PAGE_SIZE * 16]
                if any(piece):
                    stream.seek(offset)
                    stream.write(piece)
            stream.truncate(len(self.image))
        revision = Backup(self.repository, ("test",), events=Events(), clock=self.clock).run()
        self.revisions[revision.id] = bytes(self.image)

    @precondition(lambda self: self.revisions)
    @rule(number=st.integers(0, 20))
    def forget(self, number: int) -> None:
        revision_id = list(self.revisions)[number % len(self.revisions)]
        forget(self.repository, [revision_id], "a test", force=True)
        del self.revisions[revision_id]

    @rule()
    def purge(self) -> None:
        purge(self.repository)
        maps = (self.repository.records.load_map(name) for name in self.repository.records.mapped())
        live = set().union(*(chunks.distinct() for chunks in maps))
        names = [parse_name(path.name) for path in self.repository.directory.glob("chunks/??/*")]
        bases = {file.base for file in names if file.base is not None and file.chunk_id in live}
        assert [file for file in names if file.chunk_id not in live and (file.base or file.chunk_id not in bases)] == []

    @invariant()
    def every_revision_reads_back(self) -> None:
        assert [revision.id for revision in self.repository.records.history()] == list(self.revisions)
        for revision_id, expected in self.revisions.items():
            with self.repository.image(self.repository.records.read(revision_id)) as image:
                assert image.pread(0, image.size) == expected


class Shared(Store):
    """Two repositories that share, of which one is in front and does what the other one did before."""

    # tmpfs knows no other way, and where each file is the same one, more can go wrong
    options: ClassVar[dict[str, Any]] = {"share": {"mode": "hardlink"}}

    def __init__(self) -> None:
        super().__init__()
        (self.folder / POOL).mkdir()
        self.repository = self.made("vm")
        self.behind, self.kept = self.made("other"), dict[str, bytes]()

    def made(self, name: str) -> Repository:
        """Make a repository; of what was there, only others know."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return super().made(name)

    @rule()
    def turn(self) -> None:
        self.repository, self.behind = self.behind, self.repository
        self.revisions, self.kept = self.kept, self.revisions

    @rule()
    def lose(self) -> None:
        self.repository, self.revisions = self.made(self.repository.directory.name), {}

    @rule(number=st.integers(0, 20), content=st.sampled_from([b"", b"damaged", None]))
    def spoil(self, number: int, content: bytes | None) -> None:
        """Replace a file of the pool, or remove it: nobody relies on any."""
        paths = sorted(self.folder.glob(f"{POOL}/all/??/*"))
        if paths:
            paths[number % len(paths)].unlink()
        if paths and content is not None:
            paths[number % len(paths)].write_bytes(content)

    @rule()
    def sweep(self) -> None:
        (self.folder / POOL / SWEPT).unlink(missing_ok=True)
        self.purge()
        assert all(path.stat().st_nlink > 1 for path in self.folder.glob(f"{POOL}/all/??/*"))

    @invariant()
    def the_other_one_has_what_it_had(self) -> None:
        self.turn()
        self.every_revision_reads_back()
        self.turn()


@pytest.mark.parametrize("machine", [Store, Shared])
def test_the_store_is_the_dictionary_it_seems_to_be(rounds, machine: type[Store]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=rounds(15, 400),
            stateful_step_count=rounds(25, 50),
            deadline=None,
            database=None,
            derandomize=rounds(1, 0) == 1,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("kind", range(1, 6))
def test_the_content_of_the_model_makes_deltas(kind: int) -> None:
    import zstandard

    assert len(zstandard.ZstdCompressor(level=1).compress(chunk(kind))) > 1000
