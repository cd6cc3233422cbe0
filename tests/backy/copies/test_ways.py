"""Copies of copies, in circles, of what was moved, and of what was lost: all are the same, bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date
from itertools import count
from pathlib import Path

import pytest

from backy.config import typed
from backy.copies.copies import pull, push
from backy.copies.ends import End, borrowed
from backy.errors import BackyError, PeerError, RevisionNotFoundError
from backy.exchange.offer import Order
from backy.exchange.wire import Hello, Wire
from backy.repository.config import FORMAT, JobConfig
from backy.repository.repository import Repository
from backy.retention.tags import retag
from backy.testing.laboratory import Laboratory
from backy.testing.memory import MemoryRepository
from tests.copying import Talk, close, make, same, sound


def test_a_copy_of_a_copy(origin: Laboratory, copy: Path, talk: Talk, tmp_path: Path) -> None:
    pull(tmp_path / "third", str(copy))
    assert {one.state.origin.place for one in same(origin, tmp_path / "third")} == {str(copy)}
    made = origin.backup()
    for here, there in ((copy, origin.directory), (tmp_path / "third", copy)):
        assert pull(here, str(there)).copied == [made.id]
    same(origin, tmp_path / "third")
    assert pull(origin.directory, str(tmp_path / "third")).copied == []
    assert not talk.errors


def test_two_servers_that_pull_from_each_other(origin: Laboratory, talk: Talk, tmp_path: Path, clock: Callable) -> None:
    """As two jobs of either server, at the same time."""
    other = make(Laboratory(tmp_path / "other/web", clock, {"type": "chunked"}))
    ways = [
        (tmp_path / "other/vm", origin.directory),
        (tmp_path / "origin/web", other.directory),
        (other.directory, tmp_path / "origin/web"),
    ]
    for _ in range(2):
        errors = list[BackyError]()
        threads = [threading.Thread(target=attempt, args=(here, there, errors)) for here, there in ways[:2]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert pull(ways[2][0], str(ways[2][1])).copied == []
        same(origin, tmp_path / "other/vm")
        same(other, tmp_path / "origin/web")
        origin.backup()
        other.backup()
    assert not talk.errors


def attempt(here: Path, there: Path, errors: list[BackyError]) -> None:
    try:
        pull(here, str(there))
    except BackyError as error:
        errors.append(error)


def test_one_repository_on_two_servers_that_pull_from_each_other(origin: Laboratory, copy: Path, talk: Talk) -> None:
    made = origin.backup()
    assert pull(origin.directory, str(copy)).copied == []
    assert pull(copy, str(origin.directory)).copied == [made.id]
    assert pull(origin.directory, str(copy)).copied == []
    same(origin, copy)


def test_a_repository_that_was_moved(origin: Laboratory, copy: Path, talk: Talk, tmp_path: Path) -> None:
    origin.directory = origin.directory.rename(tmp_path / "moved")
    copy = copy.rename(tmp_path / "also moved")
    made = origin.backup()
    assert pull(copy, str(origin.directory)).copied == [made.id]
    same(origin, copy)
    assert not talk.errors


def test_a_repository_that_was_restored_from_its_copy(
    origin: Laboratory, copy: Path, talk: Talk, tmp_path: Path
) -> None:
    origin.directory.rename(tmp_path / "lost")
    pull(origin.directory, str(copy))
    same(origin, copy)
    # it goes on where it was, with numbers that were never used
    repository = MemoryRepository.open(origin.directory)
    repository.memory.content = origin.content
    made = origin.back_up(repository)
    assert made.seq == 4
    assert made.parent
    assert pull(copy, str(origin.directory)).copied == [made.id]
    same(origin, copy)
    assert not talk.errors


@pytest.mark.parametrize("way", ["pull", "push"])
def test_some_first_and_all_later(origin: Laboratory, talk: Talk, tmp_path: Path, way: str) -> None:
    first, second, third = origin.open().records.history()
    retag(origin.open(), second, ["weekly"])

    def copied(order: Order, number: int) -> list[str]:
        target = tmp_path / f"{way}{number}"
        if way == "pull":
            return pull(target, str(origin.directory), order).copied
        target.mkdir(exist_ok=True)
        (target / ".backy").touch()
        return talk.push(origin.directory, target, order).copied

    day = date(2026, 1, 2)
    orders = [
        (Order(tags=["weekly", "none"]), [second]),
        (Order(specifications=["last", first.id]), [first, third]),
        (Order(specifications=["1"]), [second]),
        (Order(since=day), []),
        (Order(since=first.timestamp.date()), [first, second, third]),
        (Order(tags=["weekly"], specifications=["0"]), []),
    ]
    for number, (order, expected) in enumerate(orders):
        assert copied(order, number) == [one.id for one in expected]
        rest = [one.id for one in (first, second, third) if one not in expected]
        assert copied(Order(), number) == rest
        target = tmp_path / f"{way}{number}"
        same(origin, target if way == "pull" else target / "vm")
    assert not talk.errors


def test_a_revision_that_is_not_there_can_not_be_copied(origin: Laboratory, copy: Path, talk: Talk) -> None:
    for way in (pull, push):
        with pytest.raises(RevisionNotFoundError):
            way(
                *((copy, str(origin.directory)) if way is pull else (origin.directory, str(copy))),
                Order(specifications=["x"]),
            )
    sound(copy)


@pytest.mark.parametrize("way", ["pull", "push"])
def test_several_connections_share_the_work(
    origin: Laboratory, talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    talk.sessions = 4
    monkeypatch.setattr("backy.exchange.arrival.MANY", 0)
    monkeypatch.setattr("backy.copies.copies.borrowed", waiting)
    target = tmp_path / "base/vm"
    target.parent.mkdir()
    (target.parent / ".backy").touch()
    pull(target, str(origin.directory)) if way == "pull" else talk.push(origin.directory, target.parent)
    same(origin, target)
    assert sum(wire.bytes > 3000 for wire in talk.wires) > 1
    assert not talk.errors


def waiting(names: set[str], stack: ExitStack) -> Iterator[Wire]:
    """Yield all connections, the late ones, too."""
    while names:
        yield from borrowed(names, stack)


def test_connections_that_come_too_late_end_unused(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    """There is too little to copy for them."""
    talk.sessions = 4
    target = tmp_path / "base/vm"
    target.parent.mkdir()
    (target.parent / ".backy").touch()
    assert len(talk.push(origin.directory, target.parent).copied) == 3
    same(origin, target)
    assert [wire.bytes < 200 for wire in talk.wires] == [False, True, True, True]
    assert not talk.errors


def test_a_connection_that_is_refused_is_no_loss(
    origin: Laboratory, talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk.sessions = 4
    monkeypatch.setattr("backy.exchange.arrival.MANY", 0)
    serve, numbers = talk._serve, count()

    def refusing(end: End, wire: Wire) -> None:
        if next(numbers) == 2:
            wire.receive(Hello)
            close(wire)
        else:
            serve(end, wire)

    monkeypatch.setattr(talk, "_serve", refusing)
    assert len(pull(tmp_path / "copy", str(origin.directory)).copied) == 3
    same(origin, tmp_path / "copy")
    assert not talk.errors


def test_full_chunks_are_stored_as_they_are_there(origin: Laboratory, copy: Path, talk: Talk, tmp_path: Path) -> None:
    """They are as compressed as there, whatever the level here is."""
    config = {"format": FORMAT, "storage": {"type": "chunked", "compression": 19}}
    pull(tmp_path / "copy", str(origin.directory), config=typed(config, JobConfig, "config"))
    full = [path.relative_to(origin.directory) for path in origin.directory.glob("chunks/??/*.zst")]
    assert full
    assert all((tmp_path / "copy" / path).read_bytes() == (origin.directory / path).read_bytes() for path in full)


def test_what_another_revision_has_is_not_sent(origin: Laboratory, copy: Path, talk: Talk, tmp_path: Path) -> None:
    """Two repositories of one content, such as those of a machine that was backed up anew."""
    other = Laboratory(tmp_path / "other/vm", origin.clock, {"type": "chunked"})
    other.directory.parent.mkdir()
    other.initialize()
    other.content = origin.content
    made = other.backup()
    done = pull(copy, str(other.directory))
    assert (done.copied, done.bytes) == ([made.id], 0)
    other.read_back(Repository.open(copy), {made.id})
    sound(copy)
    assert not talk.errors


def test_an_empty_image(talk: Talk, tmp_path: Path, clock: Callable) -> None:
    made = Laboratory(tmp_path / "vm", clock, {"type": "chunked"})
    made.initialize()
    pull(tmp_path / "copy", str(made.directory))
    assert Repository.open(tmp_path / "copy").records.history() == []
    made.backup()
    pull(tmp_path / "copy", str(made.directory))
    made.content = bytes(9000)
    made.backup()
    pull(tmp_path / "copy", str(made.directory))
    same(made, tmp_path / "copy")
    assert not talk.errors


def test_ends_that_can_not_be(origin: Laboratory, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for target, text in {
        "ssh://": "write ssh://HOST/NAME",
        "ssh://host": "write ssh://HOST/NAME",
        "ssh://host/": "write ssh://HOST/NAME",
        "ssh://host:x/vm": "is no address",
        "ssh://[host/vm": "is no address",
        "http://host/vm": "can not be reached",
        str(tmp_path / "missing"): "is its disk mounted",
        str(tmp_path / "empty"): "is no repository",
    }.items():
        with pytest.raises(PeerError, match=text):
            pull(tmp_path / "copy", target)
    assert not (tmp_path / "copy").exists()
