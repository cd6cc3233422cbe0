"""Damage of either side: what is damaged is not copied, is told, and heals from the other side."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.copies.copies import heal, pull
from backy.errors import DamageError, PeerError
from backy.integrity.damage import distrust
from backy.repository.repository import Repository
from backy.repository.revision import Trust
from backy.scrubbing.scrub import Scrub
from backy.testing.laboratory import Laboratory
from tests.copying import Talk, same, sound


@pytest.mark.parametrize("way", ["pull", "push"])
def test_what_is_damaged_there_is_told_and_the_rest_is_copied(
    origin: Laboratory, talk: Talk, tmp_path: Path, spoil: Callable, way: str
) -> None:
    repository, target = origin.open(), tmp_path / "base/vm"
    first, second, third = repository.records.history()
    spoil(repository, third, 1)
    target.parent.mkdir()
    (target.parent / ".backy").touch()
    done = pull(target, str(origin.directory)) if way == "pull" else talk.push(origin.directory, target.parent)
    assert done.copied == [first.id, second.id]
    assert len(done.problems) == 1
    assert done.problems[0].startswith(f"{third.id}: the other side has lost it: ")
    assert [one.trust for one in repository.records.history()] == [Trust.TRUSTED, Trust.TRUSTED, Trust.DISTRUSTED]
    same(origin, target, {first.id, second.id})
    assert not talk.errors


def test_a_chunk_that_is_another_one_there_is_told(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    """Its frame is whole, so that only the id tells."""
    repository = origin.open()
    third = repository.records.history()[-1]
    chunks = repository.records.read_map(third)
    paths = [next(origin.directory.glob(f"chunks/??/{chunks[index].hex()}.zst")) for index in (1, 2)]
    shutil.copyfile(paths[1], paths[0])
    done = pull(tmp_path / "copy", str(origin.directory))
    assert done.problems[0].startswith(f"{third.id}: the other side has lost it: ")
    assert repository.records.read(third.id).trust is Trust.DISTRUSTED
    assert not talk.errors


def test_a_map_that_is_damaged_there_keeps_no_other_from_being_copied(
    origin: Laboratory, talk: Talk, tmp_path: Path
) -> None:
    first, second, third = origin.open().records.history()
    path = origin.directory / f"{second.id}.map"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\0")
    (origin.directory / f"{third.id}.attachments").touch()
    done = pull(tmp_path / "copy", str(origin.directory))
    assert done.copied == [first.id, third.id]
    assert "the chunk map is damaged" in done.problems[0]
    path.write_bytes(content)
    assert pull(tmp_path / "copy", str(origin.directory)).copied == [second.id]
    same(origin, tmp_path / "copy")


def test_a_base_that_is_damaged_there_is_no_base(origin: Laboratory, copy: Path, talk: Talk, spoil: Callable) -> None:
    """The receiver has it, and the sender sends the new chunks as a whole."""
    repository = origin.open()
    newest = repository.records.history()[-1]
    origin.content = origin.content[:8192] + b"new" + origin.content[8195:]
    made = origin.backup()
    # a chunk of its own, which is no delta of the damaged one
    repository.storage().repair(made.id, 0, repository.records.read_map(made)[0], origin.content[: 4 * 2**20])
    spoil(repository, newest, 0)
    assert pull(copy, str(origin.directory)).copied == [made.id]
    same(origin, copy)


def test_a_base_that_is_damaged_here_is_told_and_the_next_pull_gets_by_without_it(
    origin: Laboratory, copy: Path, talk: Talk, spoil: Callable
) -> None:
    repository = Repository.open(copy)
    newest = repository.records.history()[-1]
    path = spoil(repository, newest, 0)
    origin.content = origin.content[:8192] + b"new" + origin.content[8195:]
    made = origin.backup()
    done = pull(copy, str(origin.directory))
    assert done.copied == []
    assert made.id in done.problems[0]
    assert Repository.open(copy).records.read(newest.id).trust is Trust.DISTRUSTED
    assert pull(copy, str(origin.directory)).copied == [made.id]
    origin.read_back(Repository.open(copy), {made.id})
    sound(copy)
    assert path.exists()


def test_a_chunk_that_is_damaged_here_is_asked_for_again(
    origin: Laboratory, copy: Path, talk: Talk, spoil: Callable
) -> None:
    """It was left by an interrupted copy, and a power loss has torn it."""
    repository = Repository.open(copy)
    spoil(repository, repository.records.history()[0], 2)
    for path in [*copy.glob("*.rev"), *copy.glob("*.state"), *copy.glob("*.map")]:
        path.unlink()
    done = pull(copy, str(origin.directory))
    assert done.bytes == CHUNK_SIZE
    origin.read_back(Repository.open(copy), {*done.copied})
    assert len(done.copied) == 3
    assert not talk.errors


@pytest.mark.parametrize("way", ["copy", "origin"])
def test_damage_heals_from_the_other_side(
    origin: Laboratory, copy: Path, talk: Talk, spoil: Callable, way: str
) -> None:
    here, there = (copy, origin.directory) if way == "copy" else (origin.directory, copy)
    repository = Repository.open(here)
    for one in repository.records.history()[:2]:
        spoil(repository, one, 0)
    assert len(Scrub(repository, deep=True, clock=origin.clock).run().damaged) == 2
    assert {one.trust for one in repository.records.history()[:2]} == {Trust.DISTRUSTED}
    heal(Repository.open(here), str(there))
    assert not [one.trust for one in same(origin, here) if one.doubtful]


def test_what_both_have_lost_does_not_heal(
    origin: Laboratory, copy: Path, talk: Talk, spoil: Callable, clock: Callable
) -> None:
    for directory in (copy, origin.directory):
        repository = Repository.open(directory)
        spoil(repository, repository.records.history()[0], 0)
    Scrub(Repository.open(copy), deep=True, clock=clock).run()
    with pytest.raises(DamageError, match="damaged chunk"):
        heal(Repository.open(copy), str(origin.directory))
    assert Repository.open(copy).records.history()[0].trust is Trust.DISTRUSTED
    # the other side knows as well now
    assert origin.open().records.history()[0].trust is Trust.DISTRUSTED


def test_who_lies_heals_nothing(origin: Laboratory, copy: Path, talk: Talk, spoil: Callable, clock: Callable) -> None:
    repository = Repository.open(copy)
    first = repository.records.history()[0]
    spoil(repository, first, 0)
    Scrub(repository, deep=True, clock=clock).run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backy.exchange.offer.framed", lambda content: b"no frame")
        with pytest.raises((DamageError, PeerError)):
            heal(Repository.open(copy), str(origin.directory))
    assert Repository.open(copy).records.read(first.id).trust is Trust.DISTRUSTED
    heal(Repository.open(copy), str(origin.directory))
    same(origin, copy)


def test_nothing_to_heal_reads_what_is_distrusted(origin: Laboratory, copy: Path, talk: Talk) -> None:
    distrust(Repository.open(copy))
    heal(Repository.open(copy), str(origin.directory))
    assert {one.trust for one in same(origin, copy)} == {Trust.VERIFIED}
