from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE, Extent, Snapshot, SourceError, Stored, chunk_count, identify
from backy.backup.backup import Backup
from backy.backup.snapshots import Unhinted
from backy.backup.transfer import Transfer, Transferred
from backy.errors import VerificationError
from backy.image.stored import ZERO, ChunkMap
from backy.integrity import quarantine
from backy.plugins.events import Events
from backy.repository.config import VerifierSections
from backy.repository.repository import Repository
from backy.testing.laboratory import patterned
from backy.testing.memory import MemoryImage, MemoryRepository, MemorySource

BLOCK = CHUNK_SIZE // 4
"""Bytes that the model's disk is written by; the last one may be shorter."""


@dataclass
class Memory:
    """A snapshot of bytes, and what was asked of it."""

    content: bytes
    changed: list[Extent] | None = None
    short: int = 0
    read: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.content)

    def extents(self) -> Iterable[Extent]:
        """Holes are the runs of blocks that are all zeroes."""
        for offset in range(0, self.size, BLOCK):
            block = self.content[offset : offset + BLOCK]
            yield Extent(offset, len(block), data=block.count(0) != len(block))

    def changes(self) -> Iterable[Extent] | None:
        return self.changed

    def pread(self, offset: int, length: int) -> bytes:
        self.read.append(offset // CHUNK_SIZE)
        return self.content[offset : offset + length - self.short]


@dataclass
class Shelf:
    """A storage's writer that keeps everything in dictionaries."""

    written: dict[int, tuple[bytes, bytes, bytes | None]] = field(default_factory=dict)
    zeroed: set[int] = field(default_factory=set)

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        assert index not in self.written
        assert chunk_id == identify(data)
        self.written[index] = (chunk_id, data, previous)
        return 1

    def zero(self, index: int) -> None:
        assert index not in self.zeroed
        self.zeroed.add(index)

    def commit(self) -> Stored:
        return Stored(0)


def ids(chunks: ChunkMap) -> list[bytes]:
    return [chunks[index] for index in range(len(chunks))]


def ids_of(content: bytes) -> list[bytes]:
    pieces = [content[offset : offset + CHUNK_SIZE] for offset in range(0, len(content), CHUNK_SIZE)]
    return [ZERO if piece.count(0) == len(piece) else identify(piece) for piece in pieces]


def run(memory: Memory, parent: ChunkMap | None = None) -> tuple[Transferred, Shelf, list[int]]:
    shelf, progress = Shelf(), []
    return Transfer(memory, shelf, parent, progress.append).run(), shelf, progress


def disk(blocks: list[int], tail: int) -> bytes:
    content = b"".join(bytes([value]) * BLOCK for value in blocks)
    return content[: len(content) - BLOCK + tail] if blocks and tail else content


def differences(new: bytes, old: bytes) -> list[Extent]:
    """Tell what a source that knows its changes would: blocks, growth included, zeroes as holes."""
    found = []
    for offset in range(0, len(new), BLOCK):
        block = new[offset : offset + BLOCK]
        if offset + len(block) > len(old) or old[offset : offset + len(block)] != block:
            found.append(Extent(offset, len(block), data=block.count(0) != len(block)))
    return found


def _pages(data: bytes) -> int:
    """Count the bytes of the pages that are not all zeroes."""
    return sum(len(page) for start in range(0, len(data), 4096) if any(page := data[start : start + 4096]))


disks = st.builds(disk, st.lists(st.sampled_from([0, 0, 1, 2]), max_size=14), st.sampled_from([0, 1, BLOCK - 1]))
few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(disks)
def test_a_full_backup_stores_every_chunk_that_is_not_zero(content: bytes) -> None:
    done, shelf, progress = run(Memory(content))

    assert ids(done.chunks) == ids_of(content)
    assert {index for index, chunk_id in enumerate(ids_of(content)) if chunk_id != ZERO} == set(shelf.written)
    assert not shelf.zeroed
    assert sum(progress) == len(content)


@few
@given(disks, disks, st.booleans())
def test_an_incremental_backup_has_the_map_of_a_full_one(new: bytes, old: bytes, told: bool) -> None:
    parent = run(Memory(old))[0].chunks
    memory = Memory(new, differences(new, old) if told else None)
    done, shelf, _ = run(memory, parent)

    before = [*ids_of(old), *([ZERO] * chunk_count(len(new)))]
    changed = {index for index, chunk_id in enumerate(ids_of(new)) if chunk_id != before[index]}
    assert ids(done.chunks) == ids_of(new)
    assert set(shelf.written) == {index for index in changed if done.chunks[index] != ZERO}
    assert shelf.zeroed == changed - set(shelf.written)
    for index, (_, _, previous) in shelf.written.items():
        assert previous == (None if before[index] == ZERO else before[index])
    assert done.bytes_read == sum(done.chunks.length(index) for index in memory.read)
    pages = sum(_pages(data) for _, data, previous in shelf.written.values() if previous is None)
    differing = sum(previous is not None for _, _, previous in shelf.written.values())
    assert done.bytes_written == pages + differing + sum(done.chunks.length(index) for index in shelf.zeroed)
    assert ids(parent) == ids_of(old)


def test_only_what_the_source_says_has_changed_is_read() -> None:
    content = bytearray(random.Random(1).randbytes(5 * CHUNK_SIZE + 7))
    parent = run(Memory(bytes(content)))[0].chunks
    content[2 * CHUNK_SIZE + 9] ^= 1
    memory = Memory(bytes(content), [Extent(2 * CHUNK_SIZE + 9, 1, data=True)])
    _, shelf, _ = run(memory, parent)

    assert memory.read == [2]
    assert set(shelf.written) == {2}


def test_a_chunk_whose_length_changed_is_read_whatever_the_source_says() -> None:
    content = random.Random(1).randbytes(3 * CHUNK_SIZE)
    parent = run(Memory(content))[0].chunks
    memory = Memory(content[: 2 * CHUNK_SIZE + 5], [])
    done, shelf, _ = run(memory, parent)

    assert ids(done.chunks) == ids_of(memory.content)
    assert memory.read == [2] == list(shelf.written)


def test_a_chunk_that_grew_is_read_although_the_source_tells_of_a_later_one_only() -> None:
    content = random.Random(1).randbytes(3 * CHUNK_SIZE)
    parent = run(Memory(content[: CHUNK_SIZE + 5]))[0].chunks
    memory = Memory(content, [Extent(2 * CHUNK_SIZE, CHUNK_SIZE, data=True)])
    done, _, _ = run(memory, parent)

    assert ids(done.chunks) == ids_of(content)
    assert sorted(memory.read) == [1, 2]


@pytest.mark.parametrize("short", [1, CHUNK_SIZE])
def test_a_short_read_is_never_stored(short: int) -> None:
    shelf = Shelf()

    with pytest.raises(SourceError, match=f"gave {CHUNK_SIZE - short} instead of {CHUNK_SIZE} bytes at 0"):
        Transfer(Memory(bytes([1]) * CHUNK_SIZE, short=short), shelf, None, lambda _: None).run()
    assert not shelf.written


def test_extents_with_a_gap_are_refused() -> None:
    memory = Memory(bytes(CHUNK_SIZE * 2))
    memory.extents = lambda: [Extent(0, CHUNK_SIZE, data=False)]

    with pytest.raises(SourceError, match="tells nothing"):
        run(memory)


def test_a_snapshot_without_its_hint_is_read_as_a_whole() -> None:
    memory = Memory(random.Random(1).randbytes(3 * CHUNK_SIZE), changed=[])
    unhinted = Unhinted(memory)

    assert (unhinted.size, list(unhinted.extents())) == (memory.size, list(memory.extents()))
    assert unhinted.changes() is None
    assert unhinted.pread(5, 9) == memory.content[5:14]
    done = Transfer(unhinted, Shelf(), ChunkMap(memory.size), lambda _length: None).run()
    assert (done.hinted, done.bytes_read) == (False, memory.size)


@pytest.mark.parametrize("size", [6, 3, 8])
@pytest.mark.parametrize("hint", [(), (Extent(0, 1, data=True), Extent(2 * CHUNK_SIZE, CHUNK_SIZE, data=True))])
def test_wrong_chunks_of_the_parent_are_read_whatever_the_source_tells(size: int, hint: tuple[Extent, ...]) -> None:
    """Each once, and only those that the image still has."""

    reads: list[int] = []

    class Noting(MemoryImage):
        def pread(self, offset: int, length: int) -> bytes:
            reads.append(offset // CHUNK_SIZE)
            return super().pread(offset, length)

    snapshot = Noting(bytes([7]) * (size * CHUNK_SIZE), hint)
    done = Transfer(snapshot, Shelf(), ChunkMap(6 * CHUNK_SIZE), lambda _length: None, wrong=(5, 1, 2)).run()
    expected = {index for index in {1, 2, 5, *([0] if hint else [])} if index < size}
    assert sorted(reads) == sorted(expected)
    assert {index for index, seen in enumerate(done.seen) if seen} == expected


# what a source tells of changes is relied on only as long as the verifier finds nothing else --------------------------

CHUNKS = [patterned(100 * number) for number in range(6)]
NEW = patterned(1000)


@dataclass
class Teller(MemorySource):
    """A source that says whatever a test wants it to say, and remembers what it was asked."""

    hint: tuple[Extent, ...] = ()
    asked: list[str | None] = field(default_factory=list)

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        self.asked.append(parent)
        yield self.wrap(MemoryImage(self.content, self.hint))


@pytest.fixture
def repository(backy_repository: MemoryRepository) -> MemoryRepository:
    """A repository whose source says that nothing ever changes, and which has one revision."""
    backy_repository.memory = Teller(b"".join(CHUNKS))
    return backy_repository


def content(repository: Repository, number: int = -1) -> bytes:
    with repository.image(repository.records.history()[number]) as image:
        return image.pread(0, image.size)


def test_a_hint_that_leaves_out_a_change_is_found_out_and_all_is_read_at_once(repository, clock, caplog) -> None:
    first = Backup(repository, ("one",), clock=clock).run()
    repository.memory.content = b"".join([*CHUNKS[:4], NEW, CHUNKS[5]])
    second = Backup(repository, ("two",), clock=clock).run()

    # of the snapshot that it told too little of: nothing changed meanwhile
    assert repository.memory.asked == [None, first.id]
    assert content(repository) == repository.memory.content
    assert content(repository, 0) == b"".join(CHUNKS)
    assert repository.records.history() == [first, second]
    assert second.parent == first.id
    assert second.statistics.bytes_read == len(repository.memory.content)
    assert str(second.verification) == "verified"
    (report,) = quarantine.findings(repository.directory)
    assert (report.index, report.cause) == (4, "stored and source differ")
    assert report.revision == second.id
    assert "1 chunk that is not what the source has" in caplog.text
    assert "may have told too little of what changed, so now all of it is read" in caplog.text


def test_a_hint_is_relied_on_again_afterwards(repository, clock) -> None:
    Backup(repository, ("one",), clock=clock).run()
    repository.memory.content = b"".join([NEW, *CHUNKS[1:]])
    second = Backup(repository, ("two",), clock=clock).run()
    third = Backup(repository, ("three",), clock=clock).run()

    assert repository.memory.asked[-1] == second.id
    assert third.statistics.bytes_read == 0


def test_a_hint_that_is_right_is_relied_on(repository, clock) -> None:
    Backup(repository, ("one",), clock=clock).run()
    repository.memory.content = b"".join([NEW, *CHUNKS[1:]])
    repository.memory.hint = (Extent(5, 1, data=True),)
    second = Backup(repository, ("two",), clock=clock).run()

    assert len(repository.memory.asked) == 2
    assert second.statistics.bytes_read == CHUNK_SIZE
    assert content(repository) == repository.memory.content


def test_a_hint_that_was_not_asked_for_is_relied_on_by_nobody(repository, clock) -> None:
    repository.config.verifier = VerifierSections.from_plain("changed")
    first = Backup(repository, ("one",), clock=clock).run()

    assert first.statistics.bytes_read == len(repository.memory.content)
    assert str(first.verification) == "verified"


def test_a_source_that_changes_behind_the_backup_fails_the_second_time_too(repository, clock, tree) -> None:
    first = Backup(repository, ("one",), clock=clock).run()

    reads: Counter[int] = Counter()

    class Fickle(MemoryImage):
        def pread(self, offset: int, length: int) -> bytes:
            # each backup reads something else than all who look at it afterwards
            reads[offset] += 1
            return bytes([min(reads[offset], 3)]) * length

    repository.memory.wrap = lambda image: Fickle(image.content, image.hint)
    with pytest.raises(VerificationError):
        Backup(repository, ("two",), clock=clock).run()
    assert len(repository.memory.asked) == 2
    assert repository.records.survey() == ([first], [])


def test_after_a_crash_between_both_a_chunk_that_is_wrong_is_found_again(repository, clock, monkeypatch) -> None:
    repository.config.verifier = VerifierSections.from_plain("changed")
    first = Backup(repository, ("one",), clock=clock).run()
    # its turn is in the second backup, which crashes
    repository.memory.content = b"".join([*CHUNKS[:2], NEW, *CHUNKS[3:]])

    def crash(_snapshot):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("backy.backup.backup.Unhinted", crash)
        with pytest.raises(KeyboardInterrupt):
            Backup(repository, ("two",), clock=clock).run()
    assert repository.records.history() == [first]

    Backup(repository, ("two",), clock=clock).run()
    assert content(repository) == repository.memory.content


def test_events_tell_of_the_mismatch_and_of_the_end(repository, clock, monkeypatch) -> None:
    calls: list[str] = []
    events = Events()
    monkeypatch.setattr(events, "tell", lambda hook, **_arguments: calls.append(hook))
    backup = Backup(repository, ("one",), events=events, clock=clock)
    backup.run()
    repository.memory.content = NEW + b"".join(CHUNKS[1:])
    replace(backup, tags=("two",)).run()

    assert calls == ["backy_backup_finished", "backy_verification_failed", "backy_backup_finished"]
