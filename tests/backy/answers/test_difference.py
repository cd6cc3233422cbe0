from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.answers.images import compare
from backy.api import CHUNK_SIZE, PAGE_SIZE, Extent, identify
from backy.errors import ChunkDamageError
from backy.extents import joined
from backy.image.stored import ChunkMap, StoredImage
from backy.system.progress import quiet


class Memory:
    """Chunks in memory that notes which were read."""

    def __init__(self, content: bytes, missing: int | None = None) -> None:
        self.content = content
        self.missing = missing
        self.reads: list[int] = []

    def read(self, index: int, chunk_id: bytes) -> bytes:
        self.reads.append(index)
        if index == self.missing:
            raise ChunkDamageError(chunk_id, "gone")
        return self.content[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]

    def probe(self, index: int, chunk_id: bytes) -> int:
        return len(self.read(index, chunk_id))

    def image(self) -> StoredImage:
        chunks = ChunkMap(len(self.content))
        for index in range(len(chunks)):
            data = self.content[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]
            if any(data):
                chunks[index] = identify(data)
        return StoredImage(chunks, self)


def page(seed: int) -> bytes:
    return random.Random(seed).randbytes(PAGE_SIZE)


OLD = b"".join(
    [page(1) + bytes(CHUNK_SIZE - PAGE_SIZE), bytes(CHUNK_SIZE), page(2) * (CHUNK_SIZE // PAGE_SIZE), page(3)]
)


def changed(*changes: tuple[int, bytes], size: int = len(OLD)) -> bytes:
    new = bytearray(OLD[:size].ljust(size, b"\0"))
    for offset, data in changes:
        new[offset : offset + len(data)] = data
    return bytes(new)


def test_nothing_differs_from_itself_and_nothing_is_read() -> None:
    old, new = Memory(OLD), Memory(OLD)

    assert compare(old.image(), new.image(), quiet).extents == []
    assert old.reads == new.reads == []


def test_pages_that_changed_are_told_as_data_or_zeroes() -> None:
    new = Memory(
        changed(
            (0, bytes(PAGE_SIZE)),
            (5 * PAGE_SIZE + 17, b"x"),
            (2 * CHUNK_SIZE - 1, b"xx"),
            (len(OLD) - 1, b"x"),
        )
    )
    found = compare(Memory(OLD).image(), new.image(), quiet)

    assert found.extents == [
        Extent(0, PAGE_SIZE, data=False),
        Extent(5 * PAGE_SIZE, PAGE_SIZE, data=True),
        Extent(2 * CHUNK_SIZE - PAGE_SIZE, 2 * PAGE_SIZE, data=True),
        Extent(3 * CHUNK_SIZE, PAGE_SIZE, data=True),
    ]
    assert (found.chunks, found.bytes, found.damaged) == (4, 5 * PAGE_SIZE, [])


def test_what_an_image_has_grown_by_differs_where_it_is_not_zero() -> None:
    new = changed((5 * CHUNK_SIZE + 1, b"x"), size=6 * CHUNK_SIZE)

    assert compare(Memory(OLD).image(), Memory(new).image(), quiet).extents == [
        Extent(5 * CHUNK_SIZE, PAGE_SIZE, data=True)
    ]


def test_what_an_image_has_lost_is_not_told() -> None:
    new = changed(size=2 * CHUNK_SIZE + 100)

    assert compare(Memory(OLD).image(), Memory(new).image(), quiet).extents == []


@pytest.mark.parametrize("damaged", ["old", "new"])
def test_a_chunk_that_can_not_be_compared_differs_as_a_whole(damaged: str) -> None:
    old = Memory(OLD, 2 if damaged == "old" else None)
    new = Memory(changed((2 * CHUNK_SIZE, b"x"), (0, b"x")), 2 if damaged == "new" else None)
    found = compare(old.image(), new.image(), quiet)

    assert found.extents == [Extent(0, PAGE_SIZE, data=True), Extent(2 * CHUNK_SIZE, CHUNK_SIZE, data=True)]
    assert [str(error).endswith("gone") for error in found.damaged] == [True]


def test_progress_is_told_what_is_compared() -> None:
    told: list[int] = []
    begun: list[tuple[str, int]] = []

    def steps(name: str, total: int):
        begun.append((name, total))
        return told.append

    compare(Memory(OLD).image(), Memory(changed((0, b"x"), (len(OLD) - 1, b"x"))).image(), steps)
    assert begun == [("diff", CHUNK_SIZE + PAGE_SIZE)]
    assert told == [CHUNK_SIZE, PAGE_SIZE]


PAGES = st.lists(st.sampled_from([bytes(PAGE_SIZE), page(1), page(2)]), min_size=1, max_size=6)


@given(PAGES, PAGES, st.integers(0, PAGE_SIZE - 1))
def test_what_differs_makes_the_new_image_of_the_old_one(old: list[bytes], new: list[bytes], cut: int) -> None:
    before, after = b"".join(old), b"".join(new)[: len(new) * PAGE_SIZE - cut]
    made = bytearray(before[: len(after)].ljust(len(after), b"\0"))
    for offset, length, data in compare(Memory(before).image(), Memory(after).image(), quiet).extents:
        assert data == any(after[offset : offset + length])
        made[offset : offset + length] = after[offset : offset + length]
    assert made == after


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.integers(0, 1)), max_size=8))
def test_joined_extents_cover_the_same_and_do_not_touch(parts: list[tuple[int, bool, int]]) -> None:
    extents, offset = [], 0
    for length, data, gap in parts:
        extents.append(Extent(offset + gap, length, data))
        offset += gap + length
    found = list(joined(extents))

    assert {(at, extent.data) for extent in found for at in range(extent.offset, extent.end)} == {
        (at, extent.data) for extent in extents for at in range(extent.offset, extent.end)
    }
    assert not any(one.end == two.offset and one.data == two.data for one, two in pairwise(found))


def test_maps_alone_tell_which_chunks_differ() -> None:
    old, new = Memory(OLD).image().chunks, Memory(changed((CHUNK_SIZE, b"x"), size=9 * CHUNK_SIZE)).image().chunks

    assert list(new.differing(old)) == [1, 3]
    assert list(old.differing(new)) == [1, 3]
