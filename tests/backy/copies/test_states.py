"""What travels with a revision, and what stays everybody's own."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import msgspec
import pytest

from backy.api import CHUNK_SIZE
from backy.config import Duration
from backy.copies.copies import pull, push, witnesses
from backy.errors import PeerError
from backy.exchange.offer import Order
from backy.exchange.wire import Chunk, Files, Wire
from backy.groups.forget import expire, forget
from backy.integrity.damage import distrust
from backy.plugins.events import Events
from backy.repository.attachments import read
from backy.repository.config import ScheduledTag
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Trust, Wrong
from backy.retention.purge import purge
from backy.retention.tags import retag
from backy.scrubbing.scrub import verify_all
from backy.system.limits import Limit
from backy.testing.laboratory import Laboratory
from backy.testing.memory import MemoryImage
from tests.copying import Talk, acts, same, sound

FILES = {"machine.xml": b"<domain/>", "node.json": b"{}"}


class Attached(MemoryImage):
    def attachments(self) -> dict[str, bytes]:
        return FILES


def of(directory: Path, revision_id: str) -> Revision:
    return Repository.open(directory).records.read(revision_id)


def test_attachments_travel(origin: Laboratory, copy: Path, talk: Talk) -> None:
    repository = origin.open()
    repository.memory.wrap = lambda image: Attached(image.content)
    made = origin.back_up(repository)
    assert made.attachments
    pull(copy, str(origin.directory))
    assert read(Repository.open(copy).records, of(copy, made.id)) == FILES
    same(origin, copy)
    assert not talk.errors


def test_files_for_people_are_the_receivers_own(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    for name in ("README", "restore.py", "audit.py", "config"):
        with (origin.directory / name).open("a") as stream:
            stream.write("\n# rm -rf /\n")
    target = tmp_path / "copy"
    pull(target, str(origin.directory))
    before = {name: (target / name).read_text() for name in ("README", "restore.py", "audit.py", "config")}
    assert not [name for name, text in before.items() if "rm -rf" in text]
    origin.backup()
    pull(target, str(origin.directory))
    assert {name: (target / name).read_text() for name in before} == before
    assert Repository.open(target).config.source is None
    assert Repository.open(target).job.id != origin.open().job.id


def test_tags_in_force_travel_once(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    repository, target = origin.open(), tmp_path / "copy"
    first, second, _ = repository.records.history()
    retag(repository, first, ["manual:keep", "test"])
    pull(target, str(origin.directory))
    assert of(target, first.id).tags == ("manual:keep", "test")
    retag(repository, repository.records.read(first.id), ["other"])
    retag(Repository.open(target), of(target, second.id), ["mine"])
    pull(target, str(origin.directory))
    assert of(target, first.id).tags == ("manual:keep", "test")
    assert of(target, second.id).tags == ("mine",)


@pytest.mark.parametrize("way", [pull, push])
def test_doubt_travels_later_and_is_never_lifted(origin: Laboratory, copy: Path, talk: Talk, way: Callable) -> None:
    repository = origin.open()
    first, second, third = repository.records.history()
    here, there = (copy, origin.directory) if way is pull else (origin.directory, copy)
    wrong = Wrong((0,), first.timestamp)
    repository.records.write_state(first.changed(wrong=wrong), "doubt")
    repository.records.write_state(second.changed(distrusted=True, damaged=(2,)), "distrust")
    distrust(repository, third.id)
    verify_all(Repository.open(copy), third.id, print)
    assert of(copy, third.id).trust is Trust.VERIFIED

    assert way(here, str(there)).copied == []
    assert of(copy, first.id).state.wrong == wrong
    assert (of(copy, second.id).trust, of(copy, second.id).damaged) == (Trust.DISTRUSTED, (2,))
    assert of(copy, third.id).trust is Trust.DISTRUSTED
    sound(copy)

    before = acts(copy)
    way(here, str(there))
    assert acts(copy) == before
    for one in (first, second, third):
        repository.records.write_state(one.changed(verified=one.timestamp), "verify")
    way(here, str(there))
    assert {of(copy, one.id).doubtful for one in (first, second, third)} == {True}
    assert not talk.errors


def test_doubt_comes_with_a_first_copy(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    repository = origin.open()
    first, second, _ = repository.records.history()
    repository.records.write_state(first.changed(wrong=Wrong((0,), first.timestamp)), "doubt")
    distrust(repository, second.id)
    pull(tmp_path / "copy", str(origin.directory))
    found = [one.trust for one in same(origin, tmp_path / "copy")]
    assert found == [Trust.WRONG, Trust.DISTRUSTED, Trust.TRUSTED]


def test_what_is_verified_there_is_not_so_here(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    repository = origin.open()
    distrust(repository)
    verify_all(repository, None, print)
    assert {one.trust for one in origin.open().records.history()} == {Trust.VERIFIED}
    pull(tmp_path / "copy", str(origin.directory))
    assert {one.trust for one in same(origin, tmp_path / "copy")} == {Trust.TRUSTED}


def test_the_trash_is_not_offered_and_deletions_are_not_mirrored(
    origin: Laboratory, copy: Path, talk: Talk, tmp_path: Path
) -> None:
    every = [one.id for one in origin.open().records.history()]
    origin.forget(every[0])
    pull(tmp_path / "second", str(origin.directory))
    same(origin, tmp_path / "second", {*every[1:]})
    pull(copy, str(origin.directory))
    same(origin, copy, {*every})
    origin.purge()
    pull(copy, str(origin.directory))
    assert {one.id for one in Repository.open(copy).records.history()} == {*every}
    sound(copy)


def test_what_was_forgotten_here_comes_back_by_its_name_only(origin: Laboratory, copy: Path, talk: Talk) -> None:
    first = origin.open().records.history()[0].id
    forget(Repository.open(copy), [first], "a test", force=True, events=Events())
    assert pull(copy, str(origin.directory)).copied == []
    purge(Repository.open(copy), Events(), everything=True)
    assert pull(copy, str(origin.directory)).copied == []
    assert push(origin.directory, str(copy)).copied == []
    assert pull(copy, str(origin.directory), Order(specifications=[first])).copied == [first]
    same(origin, copy)


def test_both_ends_have_their_own_retention(
    repository: Repository, old_revisions: Callable, talk: Talk, tmp_path: Path, clock: Callable
) -> None:
    old_revisions(repository, dict.fromkeys(range(1, 10), "daily"))
    directories = (repository.directory, tmp_path / "copy")
    pull(tmp_path / "copy", str(repository.directory))
    for directory, keep in zip(directories, (8, 2), strict=True):
        found = Repository.open(directory)
        schedule = {"daily": ScheduledTag(Duration(days=1), keep)}
        found.write_config(msgspec.structs.replace(found.config, schedule=schedule))
        while expire(Repository.open(directory), clock, Events()).going:
            pull(tmp_path / "copy", str(repository.directory))
        purge(Repository.open(directory), Events(), everything=True)
    known, kept = ([one.id for one in Repository.open(directory).records.history()] for directory in directories)
    assert 2 <= len(kept) < len(known) < 9
    assert kept == known[-len(kept) :]
    assert talk.bytes
    assert pull(tmp_path / "copy", str(repository.directory)).copied == []
    assert talk.bytes < 5000


def test_each_side_is_the_witness_of_the_other(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    pull(copy, str(origin.directory))
    heads = {"there": witnesses(str(copy)), "here": witnesses(str(origin.directory))}
    for directory, found in ((origin.directory, heads["there"]), (copy, heads["here"])):
        repository = Repository.open(directory)
        head = found[-1]
        assert head.job == repository.job.id
        assert repository.records.journal.read()[head.number - 1].hash == head.hash


def test_pages_that_changed_are_all_that_is_sent(origin: Laboratory, copy: Path, talk: Talk) -> None:
    content = bytearray(origin.content)
    for page in range(10):
        content[page * 40960 : page * 40960 + 4096] = bytes((page + each) % 251 for each in range(4096))
    origin.content = bytes(content)
    made = origin.backup()
    done = pull(copy, str(origin.directory))
    assert (done.copied, done.bytes) == ([made.id], CHUNK_SIZE)
    assert talk.bytes < made.statistics.bytes_stored * 1.05 + 3000


def test_no_chunk_takes_the_memory_of_a_map() -> None:
    claim = (100 * 2**20).to_bytes(4, "little")
    with pytest.raises(PeerError, match="wants to send 104857600 bytes"):
        Wire(BytesIO(claim), BytesIO()).receive(Chunk)
    with pytest.raises(PeerError, match="ended too early"):
        Wire(BytesIO(claim), BytesIO()).receive(Files)


def test_all_connections_together_keep_a_limit() -> None:
    slept: list[float] = []
    shared = Limit(1000, None, lambda: 0.0, slept.append)
    for wire in (Wire(BytesIO(), BytesIO(), [shared]) for _ in "12"):
        wire._count(500)
        wire._count(0)
    assert slept == pytest.approx([0.5, 0.5, 1, 1])
