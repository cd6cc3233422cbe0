from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backy.api import Extent
from backy.extents import filled


@st.composite
def ascending(draw: st.DrawFn) -> list[Extent]:
    extents = []
    position = 0
    for gap, length, data in draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.booleans()))):
        extents.append(Extent(position + gap, length, data))
        position += gap + length
    return extents


def bytes_of(extents: list[Extent], size: int) -> list[bool | None]:
    covered: list[bool | None] = [None] * size
    for extent in extents:
        assert covered[extent.offset : extent.end] == [None] * extent.length
        covered[extent.offset : extent.end] = [extent.data] * extent.length
    return covered


@given(ascending(), st.integers(0, 20), st.integers(0, 10))
def test_gaps_are_holes_from_a_place_on(extents: list[Extent], start: int, more: int) -> None:
    stop = max([extent.end for extent in extents] + [start]) + more
    before = bytes_of(extents, stop)
    after = bytes_of(list(filled(extents, start, stop)), stop)

    assert after[:start] == before[:start]
    assert after[start:] == [data or False for data in before[start:]]
    assert list(filled(extents, start, stop)) == sorted(filled(extents, start, stop))
