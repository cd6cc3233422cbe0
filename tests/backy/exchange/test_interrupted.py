"""A copy that is killed, or ends with a power loss: nothing incomplete is seen, and what is there is not sent again."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import pytest

from backy.copies.copies import pull, push, serve
from backy.errors import PeerError
from backy.exchange.wire import Chunk, Hello, Message, Want, Wire
from backy.repository.repository import Repository
from backy.testing.crashes import CERTAIN, Crash, crashes, distinct
from backy.testing.laboratory import Laboratory
from tests.copying import Talk, same, sound
from tests.playing import Play


class Deadly:
    """Ends this process by SIGKILL before it sends, or after it has received, the message with this number."""

    def __init__(self, at: int) -> None:
        self.left = at
        self._send, self._receive = Wire.send, Wire.receive

    def __enter__(self) -> None:
        ours = self

        def send(wire: Wire, message: Message) -> None:
            ours.tick()
            ours._send(wire, message)

        def receive(wire: Wire, kind: type[Message]) -> Message:
            found = ours._receive(wire, kind)
            ours.tick()
            return found

        Wire.send, Wire.receive = send, receive

    def __exit__(self, *_: object) -> None:
        Wire.send, Wire.receive = self._send, self._receive

    def tick(self) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def copied(play: Play, way: str, killed: str, at: int) -> bool:
    """Copy with one process for each side, of which one is killed; return whether it was."""
    asked, answered = os.pipe(), os.pipe()
    ends = {"here": (answered[0], asked[1]), "there": (asked[0], answered[1])}
    children = {}
    for side, (reading, writing) in ends.items():
        children[side] = os.fork()
        if children[side] == 0:
            try:
                for other in {*asked, *answered} - {reading, writing}:
                    os.close(other)
                with Deadly(at if side == killed else 10**9):
                    run(play, way, side, Wire(os.fdopen(reading, "rb"), os.fdopen(writing, "wb")))
            finally:
                os._exit(0)
    for descriptor in (*asked, *answered):
        os.close(descriptor)
    ended = {side: os.waitpid(child, 0)[1] for side, child in children.items()}
    return ended[killed] == signal.SIGKILL


def run(play: Play, way: str, side: str, wire: Wire) -> None:
    here, there = (play.copy, play.origin.directory) if way == "pull" else (play.origin.directory, play.copy)
    if side == "there":
        serve(there, wire, appending=way == "push")
        return
    talk = Talk()
    wire.send(Hello("vm", way == "push"))
    with patch("backy.copies.copies.connected", talk.given(wire)):
        (pull if way == "pull" else push)(here, str(there))


@pytest.mark.parametrize("killed", ["here", "there"])
@pytest.mark.parametrize("way", ["pull", "push"])
def test_killed_at_a_message(play: Play, talk: Talk, rounds: Callable, way: str, killed: str) -> None:
    count, moments = 0, list(range(play.length - 1))
    random.Random(way + killed).shuffle(moments)
    for at in moments[: rounds(5, len(moments))]:
        play.reset()
        dead = copied(play, way, killed, at)
        count += dead
        repository = Repository.open(play.copy)
        complete = {one.id for one in repository.records.history()}
        play.origin.read_back(repository, complete)
        stored = chunks_of(play.copy)
        with patch.object(Wire, "send", wanting(wanted := set(), play)):
            done = pull(play.copy, str(play.origin.directory))
        assert {*done.copied} | complete == {one.id for one in play.revisions}, at
        assert not wanted & stored, at
        same(play.origin, play.copy)
    assert count > 3  # the greeting is not read by who sends it
    assert not talk.errors


def chunks_of(directory: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in directory.glob("chunks/??/*")}


def wanting(wanted: set[str], play: Play) -> Callable:
    """Note the ids of all chunks that are asked for."""
    send, records = Wire.send, play.origin.open().records

    def noting(wire: Wire, message: Message) -> None:
        if isinstance(message, Want):
            chunks = records.load_map(message.id)
            wanted.update(chunks[index].hex() for index in message.indexes)
        send(wire, message)

    return noting


@pytest.mark.parametrize("durability", ["filesystem", "file", "none"])
def test_power_loss_leaves_no_incomplete_revision(
    play: Play, talk: Talk, rounds: Callable, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    receiver = Laboratory(play.copy, play.origin.clock, {"type": "chunked"}, expected=dict(play.origin.expected))
    with (play.copy / "config").open("a") as config:
        config.write(f"reserve: 0\nstorage: {{type: chunked, durability: {durability}}}\n")
    boot = "before"
    for module in ("testing.laboratory", "exchange.arrival", "backup.transfer"):
        monkeypatch.setattr(f"backy.{module}.boot_id", lambda: boot)
    recording = receiver.record(lambda: pull(play.copy, str(play.origin.directory)))
    same(play.origin, play.copy)
    chosen = crashes(recording.operations, mixtures=rounds(2, 6), seed=1)
    random.Random(durability).shuffle(chosen)
    chosen.insert(0, Crash(len(recording.operations), *CERTAIN[1]))
    for crash, left in islice(distinct(recording, chosen), rounds(8, len(chosen))):
        receiver.put(left)
        boot = f"after {crash}"
        try:
            recovered(play, receiver, boot)
        except Exception as error:
            raise AssertionError(f"{durability}, {crash}") from error


def recovered(play: Play, receiver: Laboratory, boot: str) -> None:
    """See that a pull after a power loss brings all that is not there."""
    repository = Repository.open(play.copy)
    receiver.nothing_tampered_with(repository)
    there = repository.records.history()
    receiver.read_back(repository, {one.id for one in there if not one.state.unsynced_boot})
    done = pull(play.copy, str(play.origin.directory))
    assert not done.problems
    history = Repository.open(play.copy).records.history()
    assert {one.id for one in history} == {one.id for one in play.revisions}
    receiver.read_back(repository, {one.id for one in history if one.state.unsynced_boot in {None, boot}})
    sound(play.copy)


def test_a_first_pull_whose_other_side_dies_goes_on(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    send, sent = Wire.send, []

    def failing(wire: Wire, message: Message) -> None:
        sent.append(isinstance(message, Chunk))
        if sum(sent) == 2:
            raise RuntimeError("dead")
        send(wire, message)

    with patch.object(Wire, "send", failing), pytest.raises(PeerError, match="has ended too early"):
        pull(target, str(origin.directory))
    sound(target)
    assert not [*target.glob("*.rev")]
    stored = chunks_of(target)
    assert len(stored) == 1
    pull(target, str(origin.directory))
    same(origin, target)
    assert talk.errors.pop().args == ("dead",)
