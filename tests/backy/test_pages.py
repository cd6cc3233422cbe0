from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backy.api import PAGE_SIZE
from backy.pages import differing_pages, pages_with_data, runs


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Up to 40 pages of few values, so that many are equal, the last one cut at will."""
    content = b"".join(bytes([value]) * PAGE_SIZE for value in draw(st.lists(st.integers(0, 1), max_size=40)))
    return content[: len(content) - draw(st.sampled_from([0, 0, 1, PAGE_SIZE - 1]))]


def pages_of(content: bytes) -> list[bytes]:
    return [content[offset : offset + PAGE_SIZE] for offset in range(0, len(content), PAGE_SIZE)]


@given(contents(), contents())
def test_differing_pages_are_those_that_a_page_by_page_comparison_finds(new: bytes, old: bytes) -> None:
    before = pages_of(old) + [b""] * 41

    assert differing_pages(new, old) == [n for n, page in enumerate(pages_of(new)) if page != before[n]]


def test_one_changed_byte_is_one_page() -> None:
    old = bytes(64 * PAGE_SIZE)
    new = bytearray(old)
    new[17 * PAGE_SIZE + 4095] = 1

    assert differing_pages(bytes(new), old) == [17]


@given(contents())
def test_pages_with_data_are_those_that_differ_from_zeroes(content: bytes) -> None:
    assert pages_with_data(content) == differing_pages(content, bytes(len(content)))


def test_one_byte_at_the_end_of_a_page_is_data() -> None:
    content = bytearray(3 * PAGE_SIZE + 5)
    content[2 * PAGE_SIZE - 1] = content[-1] = 1

    assert pages_with_data(bytes(content)) == [1, 3]


@given(st.sets(st.integers(0, 40)), st.integers(1, PAGE_SIZE))
def test_runs_cover_exactly_their_pages_and_never_touch(chosen: set[int], tail: int) -> None:
    length = 40 * PAGE_SIZE + tail
    joined = runs(sorted(chosen), length)

    covered = {offset for start, size in joined for offset in range(start, start + size, PAGE_SIZE)}
    assert covered == {page * PAGE_SIZE for page in chosen}
    ends = [start + size for start, size in joined]
    assert all(end < start for end, (start, _) in zip(ends, joined[1:], strict=False))
    assert not ends or ends[-1] == min(length, (max(chosen) + 1) * PAGE_SIZE)
