"""Pages that a source tells: relied on only where a verifier may find that they are too few."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE, Extent, Report, Snapshot, Stored, identify
from backy.backup.backup import Backup
from backy.backup.snapshots import Limited, Unhinted
from backy.backup.transfer import Transfer
from backy.image.stored import ChunkMap
from backy.integrity import quarantine
from backy.repository.config import VerifierSections
from backy.testing.memory import MemoryImage, MemoryRepository, MemorySource
from backy.verifiers.verifiers import SampleVerifier
from backy_storages_chunked import writer

OLD = random.Random(1).randbytes(3 * CHUNK_SIZE)
PAGES = (5, 1024 + 7, 1024 + 9)
"""What changes: a page of the first chunk and two of the second one."""


def page(number: int) -> Extent:
    return Extent(number * PAGE_SIZE, PAGE_SIZE, data=True)


def changed(content: bytes, *pages: int, seed: int = 2) -> bytes:
    new = bytearray(content)
    for number in pages:
        start = number * PAGE_SIZE
        new[start : start + PAGE_SIZE] = random.Random(f"{seed} {number}").randbytes(PAGE_SIZE)
    return bytes(new)


class Exact(MemoryImage):
    """A snapshot that tells single pages."""

    def changes_within(self, offset: int, length: int) -> Iterator[Extent]:
        return (one for one in self.hint or () if one.offset < offset + length and offset < one.end)


@dataclass
class Teller(MemorySource):
    hint: tuple[Extent, ...] | None = None

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        yield self.wrap(Exact(self.content, self.hint))


@pytest.fixture
def repository(backy_repository: MemoryRepository) -> MemoryRepository:
    backy_repository.memory = Teller(OLD)
    return backy_repository


@pytest.fixture
def bases(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The contents that are read to make deltas of them."""
    read: list[bytes] = []
    monkeypatch.setattr(writer, "identify", lambda content: read.append(content) or identify(content))
    return read


@pytest.fixture
def back_up(repository: MemoryRepository, clock) -> Callable[..., MemoryRepository]:
    """Back up the old image, then one in which PAGES have changed, and of which the source tells `told`."""

    def run(verifier: object, told: tuple[int, ...] = PAGES) -> MemoryRepository:
        repository.config.verifier = VerifierSections.from_plain(verifier)
        Backup(repository, ("one",), clock=clock).run()
        repository.memory.content = changed(OLD, *PAGES)
        repository.memory.hint = tuple(map(page, told))
        Backup(repository, ("two",), clock=clock).run()
        return repository

    return run


def content(repository: MemoryRepository) -> bytes:
    with repository.image(repository.records.history()[-1]) as image:
        return image.pread(0, image.size)


ALL = [{"type": "sample", "percent": 100}, "full", "changed"]


@pytest.mark.parametrize("verifier", ALL, ids=str)
def test_the_base_is_not_read_if_the_source_tells_the_pages(back_up, bases, verifier, caplog) -> None:
    repository = back_up(verifier)

    assert bases == []
    assert content(repository) == repository.memory.content
    revision = repository.records.history()[-1]
    assert revision.statistics.bytes_written == 3 * PAGE_SIZE
    assert list(quarantine.findings(repository.directory)) == []
    # three pages of random bytes, and what names them
    assert 3 * PAGE_SIZE < revision.statistics.bytes_stored < 4 * PAGE_SIZE


@pytest.mark.parametrize("verifier", ALL, ids=str)
def test_a_verifier_finds_that_a_page_was_not_told_and_the_chunk_is_stored_again(back_up, bases, verifier) -> None:
    repository = back_up(verifier, told=PAGES[:2])

    assert bases == []
    assert content(repository) == repository.memory.content
    (finding,) = quarantine.findings(repository.directory)
    second = repository.memory.content[CHUNK_SIZE : 2 * CHUNK_SIZE]
    assert (finding.chunk_id, finding.repaired) == (identify(second).hex(), True)


def test_scrub_and_verify_find_what_no_verifier_has_looked_at(back_up, monkeypatch, backy) -> None:
    monkeypatch.setattr(SampleVerifier, "verify", lambda *_: Report("sample", ()))
    repository = back_up("sample", told=PAGES[:2])

    for command in (("verify", "-r", "last"), ("scrub", "deep")):
        done = backy("-b", repository.directory, *command)
        assert (done.code, "damaged" in done.out + done.err) == (1, True)


@pytest.mark.parametrize("told", [PAGES, PAGES[:2]])
def test_without_a_verifier_the_base_is_read_and_nothing_is_relied_on(back_up, bases, told) -> None:
    repository = back_up("none", told)

    assert len(bases) == 2
    assert content(repository) == repository.memory.content


@pytest.mark.parametrize(
    "hint",
    [
        (Extent(0, 2 * CHUNK_SIZE, data=True),),
        # as a dirty bitmap has it that knows 64 KiB
        (Extent(0, 16 * PAGE_SIZE, data=True), Extent(CHUNK_SIZE, 16 * PAGE_SIZE, data=True)),
        tuple(page(2 * number) for number in range(1024)),
    ],
)
def test_the_base_is_read_if_the_source_tells_too_much(repository, clock, bases, hint) -> None:
    repository.memory.content = OLD
    Backup(repository, ("one",), clock=clock).run()
    repository.memory.content = changed(OLD, 4, 1024 + 6)
    repository.memory.hint = hint
    Backup(repository, ("two",), clock=clock).run()

    assert len(bases) == 2
    revision = repository.records.history()[-1]
    assert revision.statistics.bytes_written == 2 * PAGE_SIZE


@dataclass
class Shelf:
    """A writer that notes how it is called."""

    told: dict[int, list[Extent]] = field(default_factory=dict)
    compared: list[int] = field(default_factory=list)

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        self.compared.append(index)
        return 1

    def write_changes(self, index: int, chunk_id: bytes, data: bytes, previous: bytes, told) -> int:
        self.told[index] = list(told)
        return 1

    def zero(self, index: int) -> None:
        pass

    def commit(self) -> Stored:
        return Stored(0)


def stored(size: int, snapshot: Snapshot, *, verified: bool = True, wrong: tuple[int, ...] = ()) -> Shelf:
    """Return how a snapshot is stored whose parent had other chunks, and `size` bytes."""
    parent, shelf = ChunkMap(size), Shelf()
    for index in range(len(parent)):
        parent[index] = identify(b"%d" % index)
    Transfer(snapshot, shelf, parent, lambda _length: None, verified=verified, wrong=wrong).run()
    shelf.compared.sort()
    return shelf


def test_a_writer_is_told_what_changed_in_a_chunk() -> None:
    hint = (Extent(CHUNK_SIZE - 10, 20, data=True), page(2048))
    shelf = stored(len(OLD), Exact(OLD, hint))
    assert shelf == Shelf(told={0: [hint[0]], 1: [hint[0]], 2: [hint[1]]})


def test_a_chunk_that_is_wrong_in_the_parent_or_has_another_length_is_compared() -> None:
    hint = (page(0), page(1024), page(2048))
    assert stored(len(OLD), Exact(OLD, hint), wrong=(1,)) == Shelf({0: [hint[0]], 2: [hint[2]]}, [1])
    assert stored(len(OLD) - 5, Exact(OLD, hint)) == Shelf({0: [hint[0]], 1: [hint[1]]}, [2])


def test_nothing_is_told_that_is_not_verified_or_not_known() -> None:
    snapshot = Exact(OLD, (page(0),))
    assert stored(len(OLD), snapshot, verified=False) == Shelf(compared=[0])
    assert stored(len(OLD), MemoryImage(OLD, snapshot.hint)) == Shelf(compared=[0])
    assert stored(len(OLD), Unhinted(snapshot)) == Shelf(compared=[0, 1, 2])


def test_a_limit_of_the_rate_hides_no_hint() -> None:
    snapshot = Exact(OLD, (page(0),))
    limited = Limited(snapshot, [])
    assert list(limited.changes_within(0, CHUNK_SIZE)) == [page(0)]
    assert stored(len(OLD), limited) == Shelf(told={0: [page(0)]})
    assert not hasattr(Limited(MemoryImage(OLD), []), "changes_within")
