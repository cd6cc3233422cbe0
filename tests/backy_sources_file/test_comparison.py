"""The comparison of extents against a model of a file system, in which the content of every block is known."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import Extent
from backy.extents import Mapped
from backy_sources_file.fiemap import LAST, MEANINGLESS, SHARED, UNWRITTEN, differences

BLOCK = 4096
ENCODED = 0x8
OPAQUE = {"unknown": 0x2, "not allocated yet": 0x6, "compressed": ENCODED, "encrypted": 0x88, "not aligned": 0x100}
OPAQUE |= {"inline": 0x300, "tail": 0x500, "merged": 0x1000, "unwritten and compressed": 0x808, "unheard of": 1 << 30}


@dataclass(frozen=True)
class Block:
    """A block of a file: where its content lies, if it is anywhere, and what FIEMAP tells of that."""

    place: int | None = None
    """Number of the block on the disk; what lies there never changes, for both files are frozen."""
    flags: int = 0
    within: int = 0
    """Of a compressed extent: which of its blocks, which FIEMAP does not tell."""

    @property
    def content(self) -> tuple[int, int] | None:
        """What is read; None stands for zeroes."""
        return None if self.place is None or self.flags == UNWRITTEN else (self.place, self.within)


def blocks() -> st.SearchStrategy[Block]:
    places = st.integers(0, 12)
    data = st.builds(Block, places)
    unwritten = st.builds(Block, places, st.just(UNWRITTEN))
    compressed = st.builds(Block, places, st.just(ENCODED), st.integers(0, 2))
    return st.one_of(st.just(Block()), data, data, unwritten, compressed)


@st.composite
def files(draw: st.DrawFn) -> tuple[list[Block], list[Block]]:
    """A file and what became of it: runs of neighbours on the disk, some replaced, cut or grown."""
    old = [draw(blocks())]
    for _ in range(draw(st.integers(0, 12))):
        last = old[-1]
        follows = last.place is not None and draw(st.booleans())
        old.append(Block(last.place + 1, last.flags) if follows and last.place is not None else draw(blocks()))
    new = [draw(blocks()) if draw(st.integers(0, 3)) == 0 else block for block in old]
    new = new[: draw(st.integers(0, len(new)))] if draw(st.booleans()) else new
    return old, new + draw(st.lists(blocks(), max_size=4))


def mapped(draw: st.DrawFn, file: list[Block], beyond: list[Block]) -> list[Mapped]:
    """Tell of a file as FIEMAP might: what lies together in one extent or in several, with flags that mean nothing."""
    found: list[Mapped] = []
    for index, block in enumerate(file + beyond):
        if block.place is None:
            continue
        extent = Mapped(index * BLOCK, BLOCK, block.place * BLOCK, block.flags)
        last = found[-1] if found else None
        joins = last is not None and (last.offset + last.length, last.physical + last.length, last.flags) == (
            extent.offset,
            extent.physical,
            extent.flags,
        )
        if joins and last is not None and block.flags != ENCODED and draw(st.booleans()):
            found[-1] = last._replace(length=last.length + BLOCK)
        else:
            found.append(extent)
    return [extent._replace(flags=extent.flags | draw(st.sampled_from([0, LAST, SHARED]))) for extent in found]


def told(extents: list[Extent], size: int) -> list[bool | None]:
    """Return for each block whether it is said to be data, zeroes, or not to have changed."""
    found: list[bool | None] = [None] * -(-size // BLOCK)
    for extent in extents:
        assert extent.length > 0
        for index in range(extent.offset // BLOCK, -(-extent.end // BLOCK)):
            found[index] = extent.data
    return found


@given(files(), st.integers(0, BLOCK - 1), st.integers(0, BLOCK - 1), st.data())
def test_whatever_differs_is_told_and_nothing_that_is_known_to_be_the_same(
    case: tuple[list[Block], list[Block]], less: int, less_now: int, data: st.DataObject
) -> None:
    old, new = case
    old_size = max(len(old) * BLOCK - less, 0)
    new_size = max(len(new) * BLOCK - less_now, 0)
    beyond = data.draw(st.lists(blocks(), max_size=2))
    maps = mapped(data.draw, old, beyond), mapped(data.draw, new, beyond)
    found = list(differences(maps[0], old_size, maps[1], new_size))

    assert all(one.end <= other.offset for one, other in pairwise(found))
    assert all(one.end < other.offset or one.data != other.data for one, other in pairwise(found))
    assert not found or found[-1].end <= new_size
    for index, said in enumerate(told(found, new_size)):
        before = old[index] if index < len(old) else None
        now = new[index]
        grown = min((index + 1) * BLOCK, new_size) > old_size
        if before is None or grown or before.content != now.content:
            assert said is not None
        if said is False:
            assert now.content is None
        compressed = before is not None and ENCODED in {before.flags, now.flags}
        if before is not None and not grown and not compressed and before.content == now.content:
            assert said is None


def one(flags: int = 0, physical: int = 2**20, length: int = BLOCK) -> list[Mapped]:
    return [Mapped(0, length, physical, flags)]


def test_the_same_address_is_the_same_data() -> None:
    assert list(differences(one(), BLOCK, one(MEANINGLESS), BLOCK)) == []


@pytest.mark.parametrize("flags", OPAQUE.values(), ids=OPAQUE)
def test_of_what_an_address_does_not_tell_all_it_counts_as_changed(flags: int) -> None:
    changed = [Extent(0, BLOCK, data=True)]
    assert list(differences(one(flags), BLOCK, one(flags), BLOCK)) == changed
    assert list(differences(one(flags), BLOCK, one(), BLOCK)) == changed
    assert list(differences(one(), BLOCK, one(flags), BLOCK)) == changed
    assert list(differences([], BLOCK, one(flags), BLOCK)) == changed
    assert list(differences(one(flags), BLOCK, [], BLOCK)) == [Extent(0, BLOCK, data=False)]


@pytest.mark.parametrize("extent", [Mapped(0, 100, 2**20, 0), Mapped(0, BLOCK, 2**20 + 1, 0), Mapped(7, 512, 512, 0)])
def test_what_does_not_lie_on_borders_of_sectors_counts_as_changed(extent: Mapped) -> None:
    assert Extent(extent.offset, extent.length, data=True) in differences([extent], BLOCK, [extent], BLOCK)


def test_written_against_unwritten_is_a_change_even_at_one_address() -> None:
    assert list(differences(one(UNWRITTEN), BLOCK, one(), BLOCK)) == [Extent(0, BLOCK, data=True)]
    assert list(differences(one(), BLOCK, one(UNWRITTEN), BLOCK)) == [Extent(0, BLOCK, data=False)]


def test_unwritten_space_a_hole_and_unwritten_space_elsewhere_are_all_zeroes() -> None:
    zeroes = [one(UNWRITTEN), one(UNWRITTEN, physical=0), []]
    assert [list(differences(a, BLOCK, b, BLOCK)) for a in zeroes for b in zeroes] == [[]] * 9


def test_all_that_an_image_has_grown_by_is_a_change_holes_too() -> None:
    assert list(differences([], 1000, [], 3 * BLOCK)) == [Extent(1000, 3 * BLOCK - 1000, data=False)]
    assert list(differences([], 0, one(), BLOCK)) == [Extent(0, BLOCK, data=True)]
    assert list(differences([], 0, [], 0)) == []


def test_an_extent_is_cut_at_the_end_of_the_image() -> None:
    assert list(differences([], 2 * BLOCK, one(length=8 * BLOCK), 5000)) == [Extent(0, 5000, data=True)]


@pytest.mark.parametrize(
    "wrong",
    [
        [Mapped(0, BLOCK, 0, 0), Mapped(0, BLOCK, 0, 0)],
        [Mapped(BLOCK, BLOCK, 0, 0), Mapped(0, BLOCK, 0, 0)],
        [Mapped(0, 0, 0, 0)],
    ],
)
def test_what_can_not_be_a_map_of_extents_is_an_error(wrong: list[Mapped]) -> None:
    with pytest.raises(ValueError, match="an extent of"):
        list(differences(wrong, 3 * BLOCK, [], 3 * BLOCK))
