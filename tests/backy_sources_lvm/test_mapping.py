"""What thin_delta prints becomes extents that a model of two volumes agrees with."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import Extent
from backy.extents import joined
from backy_sources_lvm.snapshots import differences, parse_runs

BLOCK = 2**16
DELTA = b"""<superblock uuid="" time="2" transaction="3" data_block_size="128" nr_data_blocks="0">
  <diff left="2" right="3">
    <different begin="1600" length="16"/>
    <same begin="1616" length="16"/>
    <left_only begin="1632" length="16"/>
    <right_only begin="4800" length="16"/>
  </diff>
</superblock>
"""


def in_blocks(text: bytes) -> list[tuple[int, int, str]]:
    return [(run.start // BLOCK, run.end // BLOCK, run.kind) for run in parse_runs(io.BytesIO(text))]


def test_a_comparison_is_read() -> None:
    expected = [(1600, 1616, "changed"), (1616, 1632, "same"), (1632, 1648, "gone"), (4800, 4816, "changed")]
    assert in_blocks(DELTA) == expected


@pytest.mark.parametrize("text", [DELTA])
def test_a_text_that_is_cut_off_or_something_else_is_refused(text: bytes) -> None:
    for end in (*range(0, len(text) - 2, 11), text.index(b"</superblock")):
        with pytest.raises(ValueError, match="cut off or no XML"):
            list(parse_runs(io.BytesIO(text[:end])))
    wrong = [(b'begin="1616"', b'begin="1590"'), (b'length="16"', b'length="0"'), (b'length="16"', b'length="-1"')]
    wrong += [(b'data_block_size="128"', b""), (b"diff", b"else"), (b'length="16"', b"")]
    for old, new in wrong:
        if old in text and text.replace(old, new) != text:
            with pytest.raises(ValueError, match=r"has no number|follow what ends|tells of no volume"):
                list(parse_runs(io.BytesIO(text.replace(old, new))))


# A volume is a list of what each block has: None is not mapped, a number is a block of the pool.
volumes = st.lists(st.none() | st.integers(0, 2), max_size=12)


def printed(earlier: list[int | None], later: list[int | None]) -> bytes:
    """Print what thin_delta would."""
    length = max(len(earlier), len(later))
    pairs = [((earlier + [None] * length)[at], (later + [None] * length)[at]) for at in range(length)]
    lines = [f"<{kind} begin='{begin}' length='{size}'/>" for kind, begin, size in grouped(pairs)]
    return f"<superblock data_block_size='128'><diff>{''.join(lines)}</diff></superblock>".encode()


def grouped(pairs: list[tuple[int | None, int | None]]) -> Iterator[tuple[str, int, int]]:
    def kind(pair: tuple[int | None, int | None]) -> str | None:
        if pair[0] == pair[1]:
            return None if pair[0] is None else "same"
        return "right_only" if pair[0] is None else "left_only" if pair[1] is None else "different"

    for found, members in groupby(enumerate(pairs), lambda item: kind(item[1])):
        numbers = [number for number, _ in members]
        if found:
            yield found, numbers[0], len(numbers)


def cover(found: list[Extent], size: int) -> list[bool | None]:
    """Return for each quarter of a block whether it is data; None where no extent is."""
    quarter = BLOCK // 4
    covered: list[bool | None] = [None] * (size // quarter)
    end = 0
    for extent in found:
        assert extent.offset >= end
        assert extent.length > 0
        end = extent.end
        for at in range(extent.offset // quarter, extent.end // quarter):
            covered[at] = extent.data
    assert end <= size
    return covered


@given(volumes, volumes, st.integers(0, 48), st.integers(0, 48), st.booleans())
def test_extents_and_changes_are_those_of_a_model(
    earlier: list[int | None], later: list[int | None], old: int, new: int, holes: bool
) -> None:
    # sizes are no multiple of a block, and blocks may be mapped beyond them: a volume has shrunk
    old_size, size = old * BLOCK // 4, new * BLOCK // 4
    text = printed(earlier, later)
    found, changed = (
        list(joined(differences(parse_runs(io.BytesIO(text)), end, size, holes=holes))) for end in (0, old_size)
    )

    def has(volume: list[int | None], quarter: int) -> int | None:
        return volume[quarter // 4] if quarter // 4 < len(volume) else None

    is_data = [has(later, at) is not None or not holes for at in range(new)]
    assert cover(found, size) == is_data
    assert cover(changed, size) == [
        is_data[at] if at >= old or has(earlier, at) != has(later, at) else None for at in range(new)
    ]
    assert sum(extent.length for extent in found) == size
