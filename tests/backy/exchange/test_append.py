"""Who may append can add revisions, and can neither change, remove nor shut out those of others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from backy.copies.copies import pull, push
from backy.errors import PeerError
from backy.exchange.offer import Order
from backy.exchange.wire import Listed, Listing
from backy.repository.repository import Repository
from backy.repository.running import use_number
from backy.system.clocks import boot_id
from backy.testing.laboratory import Laboratory
from tests.backy.exchange.test_hostile import resealed
from tests.copying import Talk, make, same, sound
from tests.playing import Play, prefixed


@pytest.fixture
def other(tmp_path: Path, clock: Callable) -> Laboratory:
    """The repository of another machine, whose revisions have the same numbers."""
    return make(Laboratory(tmp_path / "other/vm", clock, {"type": "chunked"}))


def test_a_number_that_is_used_is_refused_and_what_is_there_stays(
    origin: Laboratory, other: Laboratory, copy: Path, talk: Talk, tree: Callable
) -> None:
    before = tree(copy)
    done = push(other.directory, str(copy))
    assert done.copied == []
    assert [problem.partition(": ")[2] for problem in done.problems] == [
        f"its number {number} is used already, or far above all others" for number in (1, 2, 3)
    ]
    assert tree(copy) == before

    made = origin.backup()
    assert push(origin.directory, str(copy)).copied == [made.id]
    same(origin, copy)
    assert not talk.errors


def test_a_number_far_above_all_others_is_refused(origin: Laboratory, copy: Path, talk: Talk) -> None:
    known = {one.id for one in origin.open().records.history()}
    use_number(origin.directory, 3 + 10_000)
    far = origin.backup()
    done = push(origin.directory, str(copy))
    assert done.copied == []
    assert done.problems == [f"{far.id}: its number 10004 is used already, or far above all others"]
    same(origin, copy, known)
    # who pulls asks whom it trusts
    assert pull(copy, str(origin.directory)).copied == [far.id]
    same(origin, copy)


def test_a_first_push_may_begin_with_any_number(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    use_number(origin.directory, 50_000)
    made = origin.backup()
    (tmp_path / "base").mkdir()
    (tmp_path / "base/.backy").touch()
    assert talk.push(origin.directory, tmp_path / "base", Order(specifications=["last"])).copied == [made.id]
    # the others, which have lower numbers, fill the gap
    assert len(talk.push(origin.directory, tmp_path / "base").copied) == 3
    same(origin, tmp_path / "base/vm")


FUTURE = [
    datetime(9000, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2400, 2, 29, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
]


@pytest.mark.parametrize("time", FUTURE)
def test_a_time_and_a_number_of_the_future_block_nothing(
    play: Play, backy: Callable, time: datetime, tmp_path: Path
) -> None:
    clocks = {"timestamp": time, "trusted_time": time, "boot": boot_id(), "boottime": 2.0**32}
    said = resealed(play, seq=10_001, birth_tags=("daily",), state={"tags": ("daily",)}, **clocks)
    assert play.append(said) is None
    repository = Repository.open(play.copy)
    assert {one.timestamp for one in repository.records.history()} >= {time}

    (tmp_path / "disk.img").write_bytes(play.origin.content)
    with (play.copy / "config").open("a") as config:
        config.write(
            f"source: {{type: file, filename: {tmp_path}/disk.img}}\nschedule: {{daily: {{interval: 1d, keep: 3}}}}\n"
        )
    for words in (
        ["status"],
        ["status", "--json"],
        ["why", "last"],
        ["backup", "daily"],
        ["expire"],
        ["plan", "expire"],
        ["verify"],
        ["audit"],
        ["purge"],
        ["scrub", "light"],
        ["space"],
        ["restore", "-r", "0", tmp_path / "restored"],
    ):
        result = backy("-b", play.copy, *words)
        assert result.code in {0, 2}, (words, result)
        assert "Traceback" not in result.err
        assert (result.code == 0) or words[0] in {"why", "plan", "space"}, (words, result)
    done = Talk().push(play.origin.directory, play.copy.parent)
    assert (done.copied, done.problems) == ([play.revisions[2].id], [])


def test_nothing_that_is_said_removes_or_renames(play: Play) -> None:
    for name in ("Remove", "Rename", "Put", "Forget", "Purge"):
        said = [play.pushing[0], prefixed(msgspec.msgpack.encode([name, play.revisions[0].id]))]
        assert "does not speak the protocol" in (play.append(said) or "")
        play.unchanged()
    for said in (play.asking[1:], play.asking[2:]):
        assert play.append([play.pushing[0], *said])
        play.unchanged()


def test_what_is_there_is_not_asked_for_again(play: Play) -> None:
    known = play.revisions[0]
    listing = Listing([Listed(known.id, 5, known.timestamp, ("other",), None)], [], None, [])
    assert play.append([play.pushing[0], listing]) is None
    play.unchanged()


def test_a_gap_is_filled_later(origin: Laboratory, talk: Talk, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    middle = origin.open().records.history()[1]
    pull(target, str(origin.directory), Order(specifications=[middle.id]))
    same(origin, target, {middle.id})
    push(origin.directory, str(target))
    same(origin, target)
    sound(target)
    assert not talk.errors


def test_a_name_can_be_no_disk_of_one_image(origin: Laboratory, copy: Path, talk: Talk, tree: Callable) -> None:
    before = tree(copy.parent)
    with pytest.raises(PeerError, match="vm is one image, and has no disks"):
        talk.push(origin.directory, copy.parent, name="vm/data")
    assert tree(copy.parent) == before
