"""What a source tells of changes is relied on only as long as the verifier finds nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pluggy
import pytest

from backy import hookspecs, quarantine
from backy.api import CHUNK_SIZE, Extent, Snapshot
from backy.backup import Backup
from backy.errors import HintError, VerificationError
from backy.hookspecs import hookimpl
from backy.plugins.events import Events
from backy.repository import Repository
from backy.testing.laboratory import patterned
from backy.testing.memory import MemoryImage, MemoryRepository, MemorySource

CHUNKS = [patterned(100 * number) for number in range(6)]
NEW = patterned(1000)


@dataclass
class Teller(MemorySource):
    """A source that says whatever a test wants it to say, and remembers what it was asked."""

    hint: tuple[Extent, ...] = ()
    asked: list[str | None] = field(default_factory=list)

    @contextmanager
    def snapshot(self, revision: str, since: str | None) -> Iterator[Snapshot]:
        self.asked.append(since)
        yield self.wrap(MemoryImage(self.content, self.hint))


@pytest.fixture
def repository(backy_repository: MemoryRepository) -> MemoryRepository:
    """A repository whose source says that nothing ever changes, and which has one revision."""
    backy_repository.memory = Teller(b"".join(CHUNKS))
    return backy_repository


def content(repository: Repository, number: int = -1) -> bytes:
    with repository.image(repository.history()[number]) as image:
        return image.pread(0, image.size)


def test_a_hint_that_leaves_out_a_change_is_found_out_and_all_is_read_at_once(repository, clock, caplog) -> None:
    first = Backup(repository, ("one",), clock=clock).run()
    repository.memory.content = b"".join([*CHUNKS[:4], NEW, CHUNKS[5]])
    second = Backup(repository, ("two",), clock=clock).run()

    assert repository.memory.asked == [None, first.id, None]
    assert content(repository) == repository.memory.content
    assert content(repository, 0) == b"".join(CHUNKS)
    assert repository.history() == [first, second]
    assert second.parent == first.id
    assert second.statistics.bytes_read == len(repository.memory.content)
    assert str(second.verification) == "verified"
    (report,) = quarantine.findings(repository.directory)
    assert (report.chunk, report.cause) == (4, "stored and source differ")
    assert report.revision not in {first.id, second.id}
    assert "1 chunks that are not what the source has" in caplog.text
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
    repository.config.verifier = {"type": "changed"}
    first = Backup(repository, ("one",), clock=clock).run()

    assert first.statistics.bytes_read == len(repository.memory.content)
    assert str(first.verification) == "verified"


def test_a_source_that_is_never_the_same_fails_the_second_time_too(repository, clock, tree) -> None:
    first = Backup(repository, ("one",), clock=clock).run()

    class Fickle(MemoryImage):
        reads = 0

        def pread(self, offset: int, length: int) -> bytes:
            Fickle.reads += 1
            return Fickle.reads.to_bytes(length, "big")

    repository.memory.wrap = lambda image: Fickle(image.content, image.hint)
    with pytest.raises(VerificationError) as failed:
        Backup(repository, ("two",), clock=clock).run()
    assert not isinstance(failed.value, HintError)
    assert len(repository.memory.asked) == 3
    assert repository.survey() == ([first], [])


def test_after_a_crash_between_both_a_chunk_that_is_wrong_is_found_again(repository, clock, monkeypatch) -> None:
    repository.config.verifier = {"type": "changed"}
    first = Backup(repository, ("one",), clock=clock).run()
    repository.memory.content = b"".join([NEW, *CHUNKS[1:]])
    attempt = Backup._attempt

    def crash(backup, source, storage, *, hinted=True):
        if not hinted:
            raise KeyboardInterrupt
        return attempt(backup, source, storage)

    with monkeypatch.context() as patch:
        patch.setattr(Backup, "_attempt", crash)
        with pytest.raises(KeyboardInterrupt):
            Backup(repository, ("two",), clock=clock).run()
    assert repository.history() == [first]

    Backup(repository, ("two",), clock=clock).run()
    assert content(repository) == repository.memory.content


def test_events_tell_of_the_mismatch_and_of_the_end(repository, clock) -> None:
    calls: list[str] = []

    class Observer:
        @hookimpl
        def backy_verification_failed(self, mismatches) -> None:
            calls.append(f"{mismatches} mismatches")

        @hookimpl
        def backy_backup_failed(self) -> None:
            calls.append("failed")

        @hookimpl
        def backy_backup_finished(self) -> None:
            calls.append("finished")

    manager = pluggy.PluginManager("backy")
    manager.add_hookspecs(hookspecs)
    manager.register(Observer())
    backup = Backup(repository, ("one",), events=Events({"observer": manager}), clock=clock)
    backup.run()
    repository.memory.content = NEW + b"".join(CHUNKS[1:])
    replace(backup, tags=("two",)).run()

    assert calls == ["finished", "1 mismatches", "finished"]
