"""What both sides say, changed by chance: the other side refuses it in one line, or it did no harm."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from backy.answers.replay import findings
from backy.exchange.wire import Message
from backy.repository.journal import facts_of
from backy.repository.repository import Repository
from tests.playing import Play, prefixed

NUMBERS = [0, -1, 1, 2, 255, 2**31, 2**32, 2**60, 2**63, 2**64 - 1, True, 0.5]
TEXTS = ["", "..", "../x", "a/b", "/etc/passwd", "\0", "\n", "x" * 5000, "last", "config"]


def leaves(content: Any, path: tuple = ()) -> list[tuple]:
    """Return where something is in a decoded message, the containers included."""
    if isinstance(content, dict):
        inner: Any = content.items()
    elif isinstance(content, list):
        inner = enumerate(content)
    else:
        inner = ()
    return [path] * bool(path) + [leaf for key, value in inner for leaf in leaves(value, (*path, key))]


def other(chance: random.Random, value: Any) -> Any:
    """Return what may stand in the place of a value."""
    options: list[Any] = [None, chance.choice(NUMBERS), chance.choice(TEXTS), [], b"", [value], {}]
    if isinstance(value, list):
        options += [value * 2, value[::-1], value[:-1], value[1:]] * 2
    elif isinstance(value, int):
        options += [value + 1, value - 1, *NUMBERS]
    elif isinstance(value, bytes):
        flipped = bytearray(value or b"\0")
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        options += [value[: len(value) // 2], value + b"\0", value * 2, *[bytes(flipped)] * 4]
    elif isinstance(value, str):
        options += [value + "x", value[:-1], value[::-1], *TEXTS]
    return chance.choice(options)


def mutated(chance: random.Random, said: list[Message]) -> list[bytes]:
    """Return what is said with one thing changed, or two."""
    plain = [msgspec.msgpack.encode(one) for one in said]
    for _ in range(chance.choice([1, 1, 2])):
        at = chance.randrange(len(plain))
        kind = chance.choice(["member"] * 6 + ["flip", "flip", "drop", "twice", "swap", "cut", "again"])
        if kind == "member":
            # a message that was changed before may be none any more
            content = msgspec.msgpack.decode(msgspec.msgpack.encode(said[at]))
            path = chance.choice(leaves(content))
            inner = content
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = other(chance, inner[path[-1]])
            plain[at] = msgspec.msgpack.encode(content)
        elif kind == "flip":
            flipped = bytearray(plain[at])
            flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
            plain[at] = bytes(flipped)
        elif kind == "drop" and len(plain) > 1:
            del plain[at], said[at]
        elif kind in {"twice", "again"}:
            plain.insert(at, plain[chance.randrange(len(plain))] if kind == "again" else plain[at])
            said.insert(at, said[at])
        elif kind == "swap":
            to = chance.randrange(len(plain))
            plain[at], plain[to] = plain[to], plain[at]
        else:
            plain[at] = plain[at][: chance.randrange(len(plain[at]))]
    framed = [prefixed(one) for one in plain]
    if chance.random() < 0.1:  # a length that is wrong
        at = chance.randrange(len(framed))
        framed[at] = chance.randrange(2**32).to_bytes(4, "little") + framed[at][4:]
    return framed


@pytest.mark.parametrize("side", ["append", "send", "ask"])
def test_what_is_said_wrongly_does_no_harm(play: Play, rounds: Callable, tree: Callable, side: str) -> None:
    said = {"append": play.pushing, "send": play.sending, "ask": play.asking}[side]
    before = {name: content for name, content in tree(play.origin.directory).items() if name != "journal"}
    truth = {one.id: (play.origin.directory / f"{one.id}.rev").read_bytes() for one in play.revisions}
    refused = 0
    count = rounds(100, 34_000)
    for seed in range(count):
        messages = mutated(random.Random(f"{side} {seed}"), [*said])
        try:
            error = getattr(play, side)(messages)
            refused += error is not None
            if side == "ask":
                now = {name: content for name, content in tree(play.origin.directory).items() if name != "journal"}
                assert now == before
            else:
                judge(play, truth)
        except Exception as error:
            raise AssertionError(f"{side} {seed}") from error
    assert refused > count / 3


def judge(play: Play, truth: dict[str, bytes]) -> None:
    """See that each revision that is there is one of the origin, and nothing else has changed; reset the copy."""
    repository = Repository.open(play.copy)
    history = repository.records.history(trash=True)
    assert {one.id: (play.copy / f"{one.id}.rev").read_bytes() for one in history}.items() <= truth.items()
    assert play.revisions[0].id in {one.id for one in history}
    assert not findings(repository.records.journal.read(), facts_of(play.copy))
    if len(history) > 1:
        play.origin.read_back(repository, {one.id for one in history})
        assert (play.copy / "config").read_bytes() == play.before["config"]
        assert (play.copy / "restore.py").read_bytes() == play.before["restore.py"]
        play.reset()
    elif not history[0].doubtful:
        play.unchanged()
    else:
        play.reset()
