"""A source that hides changes: what it spoils is found, and doubted as exactly as can be known."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, Consistency, Extent, Report, Snapshot, SourceError, Verifier
from backy.backup.backup import Backup
from backy.plugins.events import Events
from backy.repository.config import SourceSection, VerifierSections
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Trust
from backy.testing.memory import MemoryImage, MemoryRepository, MemorySource

CHUNKS = 6


class Frozen(MemoryImage):
    """A snapshot that says what it is like, and that may be written to while it is read."""

    consistency: Consistency = "crash"
    reads: list[int]
    fickle = False

    def pread(self, offset: int, length: int) -> bytes:
        self.reads.append(offset // CHUNK_SIZE)
        if self.fickle and self.reads.count(offset // CHUNK_SIZE) > 1:
            return bytes([len(self.reads) % 251]) * length
        return super().pread(offset, length)


@dataclass
class Liar(MemorySource):
    """A source that tells which chunks changed since the last backup, but for those in `hidden`."""

    versions: list[int] = field(default_factory=lambda: [1] * CHUNKS)
    before: list[int] | None = None
    hidden: set[int] = field(default_factory=set)
    consistency: Consistency = "crash"
    fickle: bool = False
    reads: list[int] = field(default_factory=list)

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        told = sorted(self.told)
        image = Frozen(self.content_now, tuple(Extent(index * CHUNK_SIZE, CHUNK_SIZE, data=True) for index in told))
        image.consistency, image.fickle, image.reads = self.consistency, self.fickle, self.reads
        self.reads.clear()
        yield self.wrap(image)
        self.before, self.hidden = list(self.versions), set()

    @property
    def told(self) -> set[int]:
        before = self.before or []
        changed = {index for index, version in enumerate(self.versions) if [version] != before[index : index + 1]}
        return changed - self.hidden

    @property
    def content_now(self) -> bytes:
        return b"".join(bytes([version]) * CHUNK_SIZE for version in self.versions)

    def change(self, *indexes: int, hide: bool = False) -> None:
        for index in indexes:
            self.versions[index] += 1
        self.hidden |= set(indexes) if hide else set()


def spoken(repository: Repository, revision: Revision) -> list[int]:
    """Return the version of each chunk that is stored."""
    with repository.image(revision) as image:
        return [image.chunk(index)[0] for index in range(len(image.chunks))]


class Watch:
    """Backups of a liar, with a model of what is known of each chunk, and who has to be in doubt."""

    def __init__(self, repository: MemoryRepository, verifier: dict, clock) -> None:
        repository.memory = self.source = Liar()
        repository.config.verifier = VerifierSections.from_plain(verifier)
        self.repository = repository
        self.clock = clock
        self.reports: list[Report] = []
        make = repository.verifiers
        repository.verifiers = lambda default: [self._noting(verifier) for verifier in make(default)]
        self.seen: dict[int, int] = {}
        self.wrong: dict[str, set[int]] = {}
        self.truth: dict[str, list[int]] = {}

    def _noting(self, verifier: Verifier) -> Verifier:
        verify = verifier.verify

        def noting(*arguments) -> Report:
            self.reports.append(verify(*arguments))
            return self.reports[-1]

        verifier.verify = noting
        return verifier

    def back_up(self, *tags: str) -> Revision:
        """Make a revision, and compare what came of it with the model."""
        history = self.repository.records.history()
        told, parent = self.source.told, history[-1] if history else None
        self.reports.clear()
        revision = Backup(self.repository, tags or ("daily",), Events(), clock=self.clock).run()
        self.truth[revision.id] = list(self.source.versions)

        # what was made of what the source told, and what the verifier compared with it
        if parent is None:
            made, looked_at = self.source.versions, set(range(CHUNKS))
        else:
            looked_at = told | self.wrong.get(parent.id, set())
            old = spoken(self.repository, parent)
            made = [self.source.versions[i] if i in looked_at else old[i] for i in range(CHUNKS)]
        compared = set(self.reports[0].compared) if self.reports else set()
        if any(made[index] != self.source.versions[index] for index in compared):
            hidden = {index for index in range(CHUNKS) if made[index] != self.source.versions[index]}
            for earlier in history:
                if chunks := {index for index in hidden if self.seen[index] < earlier.seq}:
                    self.wrong.setdefault(earlier.id, set()).update(chunks)
            made, looked_at = self.source.versions, set(range(CHUNKS))
        assert spoken(self.repository, revision) == made
        self.seen |= dict.fromkeys(looked_at | compared, revision.seq)
        self.check()
        return revision

    def check(self) -> None:
        found = {one.id: one.state.wrong for one in self.repository.records.history()}
        assert {name: set(wrong.chunks) for name, wrong in found.items() if wrong} == self.wrong


@pytest.fixture
def watch(backy_repository: MemoryRepository, clock) -> Callable[..., Watch]:
    return lambda verifier: Watch(backy_repository, verifier, clock)


VERIFIERS = [{"type": "full"}, {"type": "changed", "turns": 3}, {"type": "sample", "turns": 4, "percent": 1}]


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda verifier: verifier["type"])
def test_over_many_backups_just_those_are_wrong_that_may_be(watch, rounds, verifier: dict) -> None:
    """Changes that are told, hidden and hidden again; forgotten revisions; and at last a bound on how long it takes."""
    for seed in range(rounds(1, 40)):
        chance = random.Random(seed)
        story: Watch = watch(verifier)
        for revision in story.repository.records.history():
            story.repository.remove(revision.id)
        for _ in range(rounds(6, 30)):
            story.back_up()
            story.source.change(*chance.sample(range(CHUNKS), chance.randint(0, 2)))
            story.source.change(*chance.sample(range(CHUNKS), chance.randint(0, 2)), hide=True)
            history = story.repository.records.history()
            if len(history) > 3 and chance.random() < 0.3:
                gone = chance.choice(history[:-1])
                story.repository.remove(gone.id)
                story.wrong.pop(gone.id, None)
        # all that was hidden since is known after so many backups
        for _ in range(verifier.get("turns", 1) + 1):
            newest = story.back_up()
        assert spoken(story.repository, newest) == story.source.versions
        assert newest.trust is Trust.TRUSTED


@pytest.mark.parametrize("verifier", VERIFIERS[1:], ids=lambda verifier: verifier["type"])
def test_a_lie_that_lasts_is_found_in_all_revisions_that_have_it(watch, verifier: dict) -> None:
    story: Watch = watch(verifier)
    first = story.back_up()
    story.source.change(5, hide=True)
    for _ in range(verifier.get("turns", 1) + 1):
        story.back_up()
    for revision in story.repository.records.history():
        right = spoken(story.repository, revision) == story.truth[revision.id]
        assert right == (revision.trust is not Trust.WRONG)
    assert story.repository.records.read(first.id).trust is Trust.TRUSTED


@pytest.fixture
def caught(watch) -> Watch:
    """A source that hid a change of two chunks, which was found in the fourth backup by the turn of one of them."""
    story: Watch = watch({"type": "changed", "turns": 1000})
    story.back_up("first")
    story.source.change(4, 5, hide=True)
    second, third, fourth = (story.back_up(tag) for tag in ("second", "third", "fourth"))
    assert story.wrong == {second.id: {4, 5}, third.id: {4, 5}}
    assert spoken(story.repository, fourth) == story.source.versions
    return story


def test_what_reads_only_the_storage_lifts_no_doubt(caught: Watch, backy, tmp_path: Path) -> None:
    directory = caught.repository.directory
    first, second, *_ = caught.repository.records.history()

    def run(*words: object) -> str:
        done = backy("-b", directory, *words)
        assert done.code == 0, done.err
        return done.out + done.err

    def trusts() -> list[str]:
        return [one["trust"] for one in json.loads(run("status", "--json"))["revisions"]]

    assert "does not count among the newer ones" in run("why", "-r", "second")
    assert "wrong, 2 chunks" in run("status")
    for words in ("scrub deep", "scrub light", "distrust -r third"):
        run(*words.split())
        assert trusts()[1] == "wrong", words
    # sound, and nobody shall take that for right
    for words in ("verify -r second", "verify"):
        done = backy("-b", directory, *words.split())
        assert done.code == 1
        assert done.out.endswith(" wrong\n")
        assert "is wrong in 2 chunks: the source had other content" in done.err
    assert trusts() == ["trusted", "wrong", "wrong", "trusted"]
    caught.back_up()
    assert trusts() == ["trusted", "wrong", "wrong", "trusted", "trusted"]

    for spec in ("second", "3", "third"):
        refused = backy("-b", directory, "restore", "-r", spec, tmp_path / "no")
        assert refused.code == 1
        assert f"-r {first.id} the state of" in refused.err
    assert not (tmp_path / "no").exists()
    assert f"{second.id} is wrong in 2 chunks" in run("restore", "-r", second.id, tmp_path / "wrong")
    assert (tmp_path / "wrong").read_bytes() == bytes([1]) * (CHUNKS * CHUNK_SIZE)
    run("restore", tmp_path / "right")
    assert (tmp_path / "right").read_bytes() == caught.source.content_now


def test_the_next_backup_is_no_full_one(caught: Watch) -> None:
    """Also where the right revision is lost: what is wrong is read again, and nothing else."""
    third, fourth = caught.repository.records.history()[-2:]
    following = caught.back_up()
    assert (following.parent, following.statistics.bytes_read) == (fourth.id, 0)

    for lost in (fourth, following):
        caught.repository.remove(lost.id)
    again = caught.back_up()
    assert (again.parent, again.statistics.bytes_read) == (third.id, 2 * CHUNK_SIZE)
    assert spoken(caught.repository, again) == caught.source.versions


def test_raw_images_are_doubted_and_made_right_too(mount, clock) -> None:
    story = Watch(MemoryRepository.make(mount("btrfs") / "vm", {"type": "cow"}), {"type": "full"}, clock)
    directory = story.repository.directory
    story.back_up()
    story.repository.config.verifier = VerifierSections.from_plain("none")
    story.source.change(1, 5, hide=True)
    second = Backup(story.repository, ("daily",), Events(), clock=clock).run()
    story.repository.config.verifier = VerifierSections.from_plain({"type": "changed", "turns": 1})
    third = story.back_up()
    assert story.wrong == {second.id: {1, 5}}
    assert (directory / "last").read_bytes() == story.source.content_now

    # nothing but its id leads to a wrong image, and what is built upon it is right
    story.repository.remove(third.id)
    assert not (directory / "last").exists()
    assert (directory / "last.rev").readlink() == Path(f"{second.id}.rev")
    fourth = story.back_up()
    assert fourth.parent == second.id
    assert (directory / "last").read_bytes() == story.source.content_now


def test_the_doubt_outlives_a_backup_that_fails_while_it_reads_all(watch) -> None:
    story: Watch = watch({"type": "changed", "turns": 1000})
    story.back_up()
    story.source.change(4, 5, hide=True)
    second, third = story.back_up(), story.back_up()

    class Gone(Frozen):
        def pread(self, offset: int, length: int) -> bytes:
            if offset == 0:
                raise SourceError("the source is gone")
            return super().pread(offset, length)

    def spoilt(image: Frozen) -> Gone:
        image.__class__ = Gone
        return image

    story.source.wrap = spoilt
    with pytest.raises(SourceError, match="the source is gone"):
        story.back_up()
    # only what the verifier came to is known
    story.wrong = {second.id: {4}, third.id: {4}}
    story.check()
    story.source.wrap = lambda image: image
    assert story.back_up().statistics.bytes_read == CHUNKS * CHUNK_SIZE
    assert story.wrong == {second.id: {4, 5}, third.id: {4, 5}}


def test_before_a_chunk_was_compared_nobody_is_in_doubt(watch) -> None:
    story: Watch = watch({"type": "changed", "turns": 3})
    first = story.back_up()
    assert first.compared_since == first.timestamp
    # chunk 5 has its turn in the second and in the fifth
    second, third = story.back_up(), story.back_up()
    assert second.compared_since == third.compared_since == first.timestamp
    story.source.change(5, hide=True)
    fourth, fifth = story.back_up(), story.back_up()
    assert story.wrong == {third.id: {5}, fourth.id: {5}}
    assert fourth.compared_since == second.timestamp
    assert fifth.compared_since == fifth.timestamp


def test_a_chunk_that_was_told_and_read_is_no_lie(watch) -> None:
    """Even if the first look at it gave something else than all later ones."""
    story: Watch = watch({"type": "full"})
    story.repository.config.verifier = VerifierSections.from_plain("none")
    story.back_up()
    story.back_up()
    story.repository.config.verifier = VerifierSections.from_plain("full")

    class Glitch(Frozen):
        def pread(self, offset: int, length: int) -> bytes:
            found = super().pread(offset, length)
            return found if self.reads.count(offset // CHUNK_SIZE) > 1 or offset else bytes(length)

    def spoilt(image: Frozen) -> Glitch:
        image.__class__ = Glitch
        return image

    story.source.wrap = spoilt
    story.source.change(0)
    third = Backup(story.repository, ("daily",), Events(), clock=story.clock).run()
    assert story.source.reads.count(0) > 3
    assert spoken(story.repository, third) == story.source.versions
    story.check()


@pytest.mark.parametrize("sort", ["unknown", "none", "fickle"])
def test_a_source_that_may_have_been_written_to_is_no_liar(watch, sort: str) -> None:
    story: Watch = watch({"type": "full"})
    story.back_up()
    story.repository.config.source = SourceSection({"type": "memory", "torn": "accept"})
    story.repository.config.verifier = VerifierSections.from_plain("none")
    story.source.change(3, hide=True)
    story.back_up()
    story.repository.config.verifier = VerifierSections.from_plain("full")
    if sort == "fickle":
        story.source.fickle = True
    else:
        story.source.consistency = sort
    newest = Backup(story.repository, ("daily",), Events(), clock=story.clock).run()
    assert story.repository.records.read(newest.id).statistics.bytes_read == CHUNKS * CHUNK_SIZE
    story.check()


def test_hooks_are_told_which_revisions_are_wrong(watch, monkeypatch) -> None:
    told: list[dict] = []
    monkeypatch.setattr(Events, "tell", lambda _, hook, **said: told.append({"hook": hook, **said}))
    story: Watch = watch({"type": "changed", "turns": 1000})
    story.back_up()
    story.source.change(4, hide=True)
    second = story.back_up()
    story.source.change(5, hide=True)
    third = story.back_up()
    fourth = story.back_up()
    failed = [one for one in told if one["hook"] == "backy_verification_failed"]
    assert [(one["revision_id"], one["mismatches"], one["revisions"]) for one in failed] == [
        (fourth.id, 1, (second.id, third.id)),
        # then all was read, and what the verifier had not come to was found: the second has that chunk unseen, too
        (fourth.id, 2, (second.id, third.id)),
    ]
