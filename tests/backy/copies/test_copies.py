"""Revisions are pulled and pushed: what arrives is what was there, and nothing else changes on either side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backy.copies.copies import pull, push
from backy.exchange.offer import Order
from backy.making.making import sourceless
from backy.repository.repository import Repository
from backy.testing.laboratory import Laboratory
from tests.copying import Talk, acts, make, same, sound


def test_a_pull_makes_a_repository_with_the_same_revisions(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    target = tmp_path / "second/vm"
    done = pull(target, str(origin.directory))
    history = same(origin, target)
    assert done.copied == [one.id for one in history]
    assert done.problems == talk.errors == []
    assert {one.state.origin.place for one in history} == {str(origin.directory)}
    assert (target / "last.rev").readlink().name == f"{history[-1].id}.rev"
    assert acts(target) == ["begin", "copy", "copy", "copy", "copy"]
    assert acts(origin.directory)[-1] == "sent"


def test_a_push_adds_the_same_revisions(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    target = tmp_path / "disk/vm"
    Repository.initialize(target, sourceless())
    done = push(origin.directory, str(target))
    history = same(origin, target)
    assert done.copied == [one.id for one in history]
    assert done.problems == talk.errors == []
    assert {one.state.origin.place for one in history} == {"this machine"}
    assert acts(origin.directory)[-1] == "sent"


def test_nothing_to_do_sends_nothing(origin: Laboratory, copy: Path, talk: Talk) -> None:
    before = acts(copy), acts(origin.directory)
    done = pull(copy, str(origin.directory))
    assert (done.copied, done.bytes) == ([], 0)
    assert talk.bytes < 1000
    assert (acts(copy), acts(origin.directory)) == before


@pytest.mark.parametrize(("old", "new"), [("cow", "chunked"), ("chunked", "cow"), ("cow", "cow")])
def test_copies_may_have_another_storage(mount: Callable, clock: Callable, talk: Talk, old: str, new: str) -> None:
    folder = mount("btrfs")
    (folder / "origin").mkdir()
    origin = make(Laboratory(folder / "origin/vm", clock, {"type": old}))
    pull(folder / "pulled", str(origin.directory), config=sourceless(new))
    same(origin, folder / "pulled")
    Repository.initialize(folder / "pushed", sourceless(new))
    push(origin.directory, str(folder / "pushed"))
    same(origin, folder / "pushed")
    assert not talk.errors


def test_a_dry_run_counts_and_changes_nothing(origin: Laboratory, talk: Talk, tmp_path: Path, tree: Callable) -> None:
    before = tree(tmp_path)
    would = pull(tmp_path / "copy", str(origin.directory), Order(dry_run=True))
    assert tree(tmp_path) == before
    done = pull(tmp_path / "copy", str(origin.directory))
    assert (would.copied, would.bytes) == (done.copied, done.bytes)

    before = tree(tmp_path)
    origin.backup()
    before = tree(tmp_path)
    would = pull(tmp_path / "copy", str(origin.directory), Order(dry_run=True))
    pushed = push(origin.directory, str(tmp_path / "copy"), Order(dry_run=True))
    assert tree(tmp_path) == before
    done = push(origin.directory, str(tmp_path / "copy"))
    assert (would.copied, would.bytes) == (pushed.copied, pushed.bytes) == (done.copied, done.bytes)
    sound(tmp_path / "copy")
    assert not talk.errors
