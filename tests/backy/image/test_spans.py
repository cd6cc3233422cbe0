from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE, Extent, chunk_count
from backy.errors import SourceError
from backy.image.spans import Span, spans, whole

EDGES = [-4096, -1, 0, 1, 4096, CHUNK_SIZE // 2]


@st.composite
def images(draw: st.DrawFn) -> tuple[list[Extent], int]:
    """Ascending extents with gaps, their ends near the edges of chunks, and the size of the image."""
    marks = draw(st.sets(st.tuples(st.integers(0, 6), st.sampled_from(EDGES)), max_size=10))
    places = sorted({max(0, number * CHUNK_SIZE + edge) for number, edge in marks})
    kinds = [draw(st.sampled_from([True, False, None])) for _ in places]
    found = [Extent(a, b - a, k) for (a, b), k in zip(pairwise(places), kinds, strict=False) if k is not None]
    end = places[-1] if places else 0
    return found, end + draw(st.sampled_from([0, 1, CHUNK_SIZE]))


@given(images())
def test_no_chunk_is_in_two_spans_and_they_ascend(case: tuple[list[Extent], int]) -> None:
    extents, size = case
    done = 0
    for span in spans(extents, size):
        assert done <= span.start < span.stop <= chunk_count(size)
        done = span.stop


@given(images())
def test_a_chunk_is_read_or_zero_or_left_alone_as_its_extents_say(case: tuple[list[Extent], int]) -> None:
    extents, size = case
    found = {index: span.data for span in spans(extents, size) for index in range(span.start, span.stop)}

    for index in range(chunk_count(size)):
        start, end = index * CHUNK_SIZE, min((index + 1) * CHUNK_SIZE, size)
        touching = [extent for extent in extents if extent.offset < end and extent.end > start]
        hole = len(touching) == 1 and not touching[0].data and touching[0].offset <= start and touching[0].end >= end
        if hole:
            assert found[index] is False
        elif touching:
            # two holes that meet inside of a chunk may be read: that costs a little and is never wrong
            assert found[index] is True
        else:
            assert index not in found


def test_a_long_hole_is_one_span() -> None:
    assert list(spans([Extent(0, 10 * 2**40, data=False)], 10 * 2**40)) == [Span(0, 2621440, data=False)]


@pytest.mark.parametrize(
    "extents",
    [
        [Extent(0, 10, data=True), Extent(5, 10, data=True)],
        [Extent(10, 10, data=True), Extent(0, 10, data=True)],
        [Extent(0, 0, data=True)],
        [Extent(-1, 5, data=True)],
        [Extent(0, 101, data=False)],
    ],
    ids=["overlapping", "out of order", "empty", "negative", "beyond the image"],
)
def test_impossible_extents_are_refused(extents: list[Extent]) -> None:
    with pytest.raises(SourceError, match="impossible extent"):
        list(spans(extents, 100))


@pytest.mark.parametrize(
    ("extents", "end"),
    [
        ([], 0),
        ([Extent(1, 99, data=True)], 0),
        ([Extent(0, 99, data=True)], 99),
        ([Extent(0, 50, data=True), Extent(51, 49, data=True)], 50),
    ],
)
def test_an_image_that_is_told_with_a_gap_is_refused(extents: list[Extent], end: int) -> None:
    with pytest.raises(SourceError, match=f"behind byte {end} of its 100 bytes"):
        list(whole(extents, 100))


def test_an_image_without_gaps_is_handed_on() -> None:
    extents = [Extent(0, 50, data=True), Extent(50, 50, data=False)]

    assert list(whole(extents, 100)) == extents
    assert list(whole([], 0)) == []
