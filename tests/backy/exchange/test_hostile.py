"""A side that lies, or speaks nonsense, gets one error and changes nothing; honest ones go on as if nothing was."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import msgspec
import pytest
import zstandard

from backy.exchange.wire import Chunk, Done, Files, Get, List, Listed, Listing, Message, Refusal, Want
from backy.exchange.wire import framed as compressed
from backy.image.stored import ChunkMap
from backy.repository import sealed
from backy.repository.revision import Disks, State, Wrong
from tests.playing import Play, framed, prefixed

ID = "abcdefghijkl"
BOMB = bytes.fromhex("28b52ffda0000000400100") + b"\0"
"""The begin of a zstd frame that will have 1 GiB."""
OTHER = random.Random(1).randbytes(5 * 4096)
NO_LENGTH = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(2**25))


def replaced(message: Message, **members: object) -> Message:
    return msgspec.structs.replace(message, **members)


def packed(message: Message, path: tuple[int, ...], value: object) -> bytes:
    """Return a message in which a member has a value that no honest side could give it."""
    content = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    inner = content
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return prefixed(msgspec.msgpack.encode(content))


def first(said: list[Message], kind: type[Message]) -> int:
    return next(number for number, one in enumerate(said) if isinstance(one, kind))


def second(said: list[Message]) -> Files:
    """Return the files of the second revision that is sent."""
    return [one for one in said if isinstance(one, Files)][1]


def with_one(said: list[Message], kind: type[Message], make: Callable[..., Message | bytes]) -> list:
    """Return what is said with the first message of a kind replaced."""
    at = first(said, kind)
    return [*said[:at], make(said[at], said), *said[at + 1 :]]


Members = dict[str, tuple[type[Message], Callable[..., Message | bytes]]]
LISTED: Members = {
    "an id that leads elsewhere": (Listing, lambda one, said: packed(one, (1, 1, 0), "../../../x")),
    "an id with a NUL": (Listing, lambda one, said: packed(one, (1, 1, 0), "abcdefgh\0")),
    "an id with a newline": (Listing, lambda one, said: packed(one, (1, 1, 0), "abcdefgh\n")),
    "a number of 2^63": (Listing, lambda one, said: packed(one, (1, 1, 1), 2**63)),
    "a number below 1": (Listing, lambda one, said: packed(one, (1, 1, 1), 0)),
    "a time without a zone": (Listing, lambda one, said: packed(one, (1, 1, 2), "2026-01-01T00:00:00")),
    "a million revisions": (Listing, lambda one, said: packed(one, (1,), [*[0] * 10**6])),
    "a doubt that is none": (Listing, lambda one, said: packed(one, (1, 0, 4), b"{}")),
    "a head of great length": (Listing, lambda one, said: packed(one, (3, "job"), "x" * 10**6)),
    "texts that are none": (Listing, lambda one, said: framed(one).replace(b"Listing", b"List\xff\xffg")),
    "a list of what there is, again": (Files, lambda one, said: said[first(said, Listing)]),
    "a chunk before its files": (Files, lambda one, said: said[first(said, Chunk)]),
    "the other revision's files": (Files, lambda one, said: second(said)),
    "the other map": (Files, lambda one, said: replaced(one, map=second(said).map)),
    "another state": (Files, lambda one, said: replaced(one, state=second(said).state)),
    "attachments that nobody has": (Files, lambda one, said: replaced(one, attachments=b"{}")),
    "an empty map": (Files, lambda one, said: replaced(one, map=compressed(b""))),
    "no frame": (Files, lambda one, said: replaced(one, map=b"no frame")),
    "a bomb as a map": (Files, lambda one, said: replaced(one, map=BOMB)),
    "a map whose length is not told": (Files, lambda one, said: replaced(one, map=NO_LENGTH)),
    "a map of 2^60 bytes": (Files, lambda one, said: replaced(one, map=_map_of(2**60))),
    "an empty record": (Files, lambda one, said: replaced(one, record=b"")),
    "a bomb as a chunk": (Chunk, lambda one, said: replaced(one, frame=BOMB)),
    "a chunk whose length is not told": (Chunk, lambda one, said: replaced(one, frame=NO_LENGTH)),
    "a longer chunk": (Chunk, lambda one, said: replaced(one, pages=None, frame=compressed(bytes(10**6)))),
    "another chunk": (Chunk, lambda one, said: replaced(one, pages=None, frame=compressed(OTHER))),
    "a chunk for which nobody asked": (Chunk, lambda one, said: replaced(one, index=0)),
    "a chunk beyond the end": (Chunk, lambda one, said: replaced(one, index=10**6)),
    "a chunk of 2^60": (Chunk, lambda one, said: packed(one, (1,), 2**60)),
    "pages beyond the end": (Chunk, lambda one, said: replaced(one, pages=[1023])),
    "pages that repeat": (Chunk, lambda one, said: replaced(one, pages=[2] * 1024)),
    "a million pages": (Chunk, lambda one, said: packed(one, (2,), [2] * 10**6)),
    "a chunk, again and again": (Chunk, lambda one, said: framed(replaced(one, index=0)) * 1000),
}
OFFERED: dict[str, Callable[[list[Message]], list]] = {
    **{name: partial(with_one, kind=kind, make=make) for name, (kind, make) in LISTED.items()},
    "4 GiB at once": lambda said: [*said[:1], b"\xff\xff\xff\xff" + bytes(1000)],
    "1 GiB at once": lambda said: [*said[:2], b"\0\0\0\x40" + bytes(1000)],
    "no MessagePack": lambda said: [*said[:1], prefixed(b"\xc1" * 100)],
    "deep MessagePack": lambda said: [*said[:1], prefixed(b"\x91" * 10**6)],
    "an empty message": lambda said: [*said[:1], prefixed(b"")],
    "nothing at all": lambda said: [],
    "zeroes without end": lambda said: [bytes(10**6)],
    "files before the list": lambda said: [one for one in said if not isinstance(one, Listing)],
    "that it can not go on": lambda said: [*said[:1], Refusal("no\nmore\x1b[31m")],
    "that it is done": lambda said: [*said[:1], Done([ID], [], -1, None)],
}


def _map_of(size: int) -> bytes:
    content = bytearray(ChunkMap(0).encode())
    content[16:24] = size.to_bytes(8, "little")
    return compressed(bytes(content))


@pytest.mark.parametrize("case", OFFERED)
def test_who_sends_a_lie_gets_an_error_and_changes_nothing(play: Play, case: str) -> None:
    assert play.append(OFFERED[case](play.pushing)), case
    play.unchanged()
    assert play.send(OFFERED[case](play.sending)), case
    play.unchanged()
    play.honest()


@pytest.mark.parametrize("case", ["pushing", "sending"])
def test_who_ends_early_changes_nothing(play: Play, case: str) -> None:
    said = getattr(play, case)
    content = b"".join(map(framed, said[: first(said, Chunk) + 1]))
    for end in [*range(0, 40, 3), *range(40, len(content), len(content) // 40)]:
        assert (play.append if case == "pushing" else play.send)([content[:end]])
        play.unchanged()
    play.honest()


ASKED: dict[str, Callable[[list[Message]], list]] = {
    "another version": lambda said: [replaced(said[0], version=2)],
    "another way": lambda said: [replaced(said[0], appending=not said[0].appending), *said[1:]],
    "no greeting": lambda said: said[1:],
    "two greetings": lambda said: [said[0], *said],
    "a name with '..'": lambda said: [replaced(said[0], name="../vm"), *said[1:]],
    "a name with a slash": lambda said: [replaced(said[0], name="/etc/passwd"), *said[1:]],
    "a name with two slashes": lambda said: [replaced(said[0], name="vm/a/b"), *said[1:]],
    "a name with a NUL": lambda said: [replaced(said[0], name="vm\0"), *said[1:]],
    "no name": lambda said: [replaced(said[0], name=""), *said[1:]],
    "a disk of one image": lambda said: [replaced(said[0], name="vm/data"), *said[1:]],
    "another name": lambda said: [replaced(said[0], name="other"), *said[1:]],
    "a name that backy uses": lambda said: [replaced(said[0], name="vm/journal"), *said[1:]],
    "a revision that is not there": lambda said: [said[0], Get(ID, None)],
    "a base that is not there": lambda said: with_one(said, Get, lambda one, _: replaced(one, base=ID)),
    "a revision elsewhere": lambda said: with_one(said, Get, lambda one, _: packed(one, (1,), "../../etc/passwd")),
    "a chunk beyond the end": lambda said: with_one(said, Want, lambda one, _: replaced(one, indexes=[2])),
    "a chunk far beyond the end": lambda said: with_one(said, Want, lambda one, _: packed(one, (3,), [2**60])),
    "a chunk before the begin": lambda said: with_one(said, Want, lambda one, _: packed(one, (3,), [-1])),
    "a chunk twice": lambda said: with_one(said, Want, lambda one, _: replaced(one, indexes=[1, 1])),
    "chunks in another order": lambda said: with_one(said, Want, lambda one, _: replaced(one, indexes=[1, 0])),
    "very many chunks": lambda said: with_one(said, Want, lambda one, _: packed(one, (3,), [1] * 2**25)),
    "what only the other side says": lambda said: [said[0], Listing([], [], None, [])],
    "no end": lambda said: said[:-1],
    "a head of great length": lambda said: [*said[:-1], packed(said[-1], (4, "job"), "x" * 10**6)],
    "copies of what can be no id": lambda said: [*said[:-1], packed(said[-1], (1,), ["../x"])],
}


@pytest.mark.parametrize("case", ASKED)
def test_who_asks_for_what_is_not_offered_gets_an_error(play: Play, case: str, tree: Callable) -> None:
    before = {name: content for name, content in tree(play.origin.directory).items() if name != "journal"}
    assert play.ask(ASKED[case](play.asking)), case
    assert {name: content for name, content in tree(play.origin.directory).items() if name != "journal"} == before
    if (
        case.startswith(("another n", "another v", "another w"))
        or "a name" in case
        or "greeting" in case
        or case == "a disk of one image"
    ):
        play.append(ASKED[case](play.pushing))
        play.unchanged()
        assert {path.name for path in play.copy.parents[1].iterdir()} == {"copy", "origin"}
        assert {path.name for path in play.copy.parent.iterdir()} == {"vm"}


def resealed(play: Play, *, state: dict | None = None, **record: object) -> list[Message]:
    """Return what is pushed if there is only the second revision, with other members, and seals that are right."""
    greeting, listing, files, chunk = play.pushing[:4]
    revision = play.revisions[1]
    changed = msgspec.structs.replace(revision.record, **record)
    other = sealed.encode(msgspec.structs.replace(revision.state, **state or {}))
    listed = [listing.revisions[0], Listed(revision.id, changed.seq, changed.timestamp, revision.tags, None)]
    files = replaced(files, record=sealed.encode(changed), state=other)
    return [greeting, replaced(listing, revisions=listed), files, chunk]


def naive(play: Play) -> list[Message]:
    """Return what is pushed if a time has no zone, which no honest program can write."""
    said = resealed(play)
    at = first(said, Files)
    body = said[at].record.rpartition(b',\n  "digest"')[0]
    stamp = play.revisions[1].trusted_time.isoformat().replace("+00:00", "Z").encode()
    assert stamp in body
    said[at] = replaced(said[at], record=sealed._sealed(body.replace(stamp, stamp[:-1])))
    return said


SEALED: dict[str, Callable[[Play], list[Message]]] = {
    "another number than was said": lambda play: [
        play.pushing[1] if isinstance(one, Listing) else one for one in resealed(play, seq=77)
    ],
    "another time than was said": lambda play: [
        play.pushing[1] if isinstance(one, Listing) else one
        for one in resealed(play, timestamp=play.revisions[0].timestamp)
    ],
    "a damaged chunk beyond the end": lambda play: resealed(play, state={"damaged": (10**9,), "distrusted": True}),
    "a damaged chunk before the begin": lambda play: resealed(play, state={"damaged": (-1,), "distrusted": True}),
    "a wrong chunk beyond the end": lambda play: resealed(
        play, state={"wrong": Wrong((2,), play.revisions[1].timestamp)}
    ),
    "a group with another id": lambda play: resealed(play, group=Disks("x" * 4000, ("a", "b"))),
    "a group that leads elsewhere": lambda play: resealed(play, group=Disks("../../../tmp", ("a", "b"))),
    "a disk that leads elsewhere": lambda play: resealed(play, group=Disks(play.revisions[1].id, ("../a", "b"))),
    "an image of another size": lambda play: resealed(play, size=2**46),
    "a time without a zone": naive,
    "a time that is never reached": lambda play: resealed(play, trusted_time=datetime(9999, 1, 1, tzinfo=UTC)),
    "a machine that runs for ever": lambda play: resealed(play, boottime=1e308),
}


@pytest.mark.parametrize("case", SEALED)
def test_a_record_that_is_sealed_is_not_believed_for_it(play: Play, case: str) -> None:
    said = SEALED[case](play)
    play.append(said)
    assert play.revisions[1].id not in ids_of(play), case
    play.reset()
    play.honest()


def ids_of(play: Play) -> set[str]:
    return {path.stem for path in play.copy.glob("*.rev") if not path.is_symlink()}


def test_a_doubt_about_what_is_there_names_chunks_that_there_are(play: Play) -> None:
    known = play.revisions[0]
    for bad in ((10**9,), (-1,)):
        state = sealed.encode(State(id=known.id, tags=(), storage=None, distrusted=True, damaged=bad))
        listing = replaced(play.pushing[1], revisions=[Listed(known.id, known.seq, known.timestamp, (), state)])
        assert play.append([play.pushing[0], listing])
        play.unchanged()
    play.honest()


def test_a_revision_that_is_listed_twice_is_copied_once(play: Play) -> None:
    listing = play.pushing[1]
    twice = replaced(listing, revisions=[*listing.revisions, *reversed(listing.revisions)])
    assert play.append([play.pushing[0], twice, *play.pushing[2:]]) is None
    play.honest()


def test_who_asks_for_the_list_only_learns_nothing_of_others(play: Play) -> None:
    assert play.ask([play.asking[0], List(), Done([], [], 0, None)]) is None
