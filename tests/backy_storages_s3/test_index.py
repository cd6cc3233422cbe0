"""Indexes, and which ranges of packs are read."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from backy_storages_s3.index import NOWHERE, Index, Place, Row, merged, moved, united
from backy_storages_s3.packs import TAIL, Pack, Part, read_table
from backy_storages_s3.ranges import GAP, LONGEST, Plan, joined

PACKS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(4)]
COUNT = 30
PLACES = st.builds(Place, st.sampled_from(PACKS), st.integers(0, 2**26), st.integers(11, 2**22))


def chunk(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


@st.composite
def images(draw: st.DrawFn) -> dict[int, Row]:
    """Rows by position; a delta has its base as a row, in place of its number."""
    made = {}
    for position in draw(st.sets(st.integers(0, COUNT - 1))):
        row = Row(chunk(draw(st.integers(0, 20))), draw(PLACES))
        if draw(st.booleans()):
            base = Row(chunk(draw(st.integers(100, 105))), draw(PLACES))
            pages = sorted(draw(st.sets(st.integers(0, 1023), max_size=4)))
            row = row._replace(base=base, spent=draw(st.integers(0, 2**20)), pages=pages)
        made[position] = row
    return made


def made_of(image: dict[int, Row]) -> Index:
    """Make an index as the first revision does: of nothing, by rows that are new."""
    parent = Index()
    bases: dict[Row, int] = {}
    for row in image.values():
        if row.base != NOWHERE and row.base not in bases:
            bases[row.base] = parent.append(NOWHERE, row.base)
    return merged(parent, new_rows(image, bases), image, COUNT)


def new_rows(image: dict[int, Row], bases: dict[Row, int]) -> Index:
    new = Index()
    for position, row in reversed(image.items()):
        new.append(position, row if row.base == NOWHERE else row._replace(base=bases[row.base]))
    return new


def plain(index: Index) -> dict[int, Row]:
    """Return the rows by position, with bases in place of their numbers."""
    found = {}
    for row in range(index.placed):
        one = index.row(row)._replace(pages=list(index.row(row).pages))
        found[index.positions[row]] = one._replace(base=with_list(index.row(one.base))) if one.is_delta else one
    return found


def with_list(row: Row) -> Row:
    return row._replace(pages=())


def as_lists(image: dict[int, Row]) -> dict[int, Row]:
    return {position: row._replace(pages=list(row.pages)) for position, row in image.items()}


@given(images())
def test_an_index_is_read_as_it_was_written(image):
    index = made_of(image)
    again = Index.decode(index.encode())
    assert plain(again) == plain(index) == as_lists(image)
    for position in range(COUNT):
        row = again.at(position)
        assert (row is None) == (position not in image)
        if row is not None:
            assert row in list(again.with_id(image[position].chunk_id))


@given(images(), images(), st.sets(st.integers(0, COUNT - 1)), st.integers(0, COUNT))
def test_a_new_revision_has_what_changed_and_all_else_of_its_parent(before, changes, zeroes, count):
    parent = made_of(before)
    bases = {with_list(parent.row(row)): row for row in range(len(parent)) if not parent.row(row).is_delta}
    full = {at: row for at, row in changes.items() if at not in zeroes and (row.base == NOWHERE or row.base in bases)}
    made = merged(parent, new_rows(full, bases), {*full, *zeroes}, count)
    expected = {at: row for at, row in before.items() if at not in zeroes} | full
    assert plain(Index.decode(made.encode())) == as_lists({at: row for at, row in expected.items() if at < count})
    # no base is left that no delta is made of
    used = {made.row(row).base for row in range(len(made))}
    assert set(range(made.placed, len(made))) <= used


@given(images(), st.data())
def test_damage_is_noticed(image, data):
    content = bytearray(made_of(image).encode())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match=r"."):
        Index.decode(bytes(content) if data.draw(st.booleans()) else bytes(content[:-1]))


def test_another_format_is_refused():
    text = b'{"format":9,"packs":[],' + b",".join(
        b'"%s":""' % name
        for name in (b"ids", b"position", b"pack", b"offset", b"length", b"base", b"spent", b"ends", b"pages")
    )
    with pytest.raises(ValueError, match="format 9"):
        Index.decode(zstandard.compress(text + b"}"))


@given(images(), st.dictionaries(PLACES, PLACES))
def test_parts_that_have_moved_are_found_at_their_new_places(image, to):
    index = made_of(image)
    again = moved(index, to)
    assert [again.place(row) for row in range(len(again))] == [
        to.get(index.place(row), index.place(row)) for row in range(len(index))
    ]


@given(st.lists(PLACES, max_size=40))
def test_ranges_have_all_places_and_are_short_and_far_from_each_other(places):
    ranges = list(joined(places))
    for place in places:
        assert any(one.pack == place.pack and one.offset <= place.offset and place.end <= one.end for one in ranges)
    assert all(one.length <= max(LONGEST, 2**22) for one in ranges)
    assert len(ranges) <= len(set(places))
    for one, other in pairwise(ranges):
        assert one.pack != other.pack or other.offset - one.end >= GAP or other.offset + 2**22 - one.offset > LONGEST


@given(images())
def test_a_plan_has_a_range_for_each_row_and_its_base(image):
    index = made_of(image)
    plan = Plan(index)
    for row in range(index.placed):
        for place in [index.place(row)] + [index.place(one) for one in [index.base(row)] if one != NOWHERE]:
            found = plan.range_of(row, place)
            assert found.pack == place.pack
            assert found.offset <= place.offset
            assert place.end <= found.end


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.binary(min_size=1), st.booleans()), max_size=20))
def test_a_pack_tells_what_it_has(parts):
    pack = Pack("")
    expected = [
        Part(chunk_id, chunk_id if delta else None, pack.add(chunk_id, frame, chunk_id if delta else None), len(frame))
        for chunk_id, frame, delta in parts
    ]
    name, content = pack.seal()
    content = bytes(content)
    end = len(content) - TAIL
    table = content[sum(len(frame) for _, frame, _ in parts) : end]
    assert name == hashlib.sha256(table).hexdigest() == content[end : end + 32].hex()
    assert read_table(content) == expected
    for part, (_, frame, _) in zip(expected, parts, strict=True):
        assert content[part.offset : part.offset + part.length] == frame
    with pytest.raises(ValueError, match="pack"):
        read_table(content[:-1])


def once(row: Row) -> tuple[bytes, Place, tuple[bytes, Place] | None]:
    """Return what a reader of all revisions wants of a row, with its base in place of the number."""
    return row.chunk_id, row.place, None if row.base == NOWHERE else (row.base.chunk_id, row.base.place)


@given(st.lists(images(), max_size=3))
def test_what_some_indexes_have_is_there_once_without_positions(found: list[dict[int, Row]]) -> None:
    wanted = {once(row) for image in found for row in image.values()}
    wanted |= {(*base, None) for _, _, base in wanted if base}
    # at one place is one frame
    assume(len({place for _, place, _ in wanted}) == len(wanted))
    made = united(map(made_of, found))
    rows = [made.row(row) for row in range(len(made))]
    assert len(rows) == len(wanted)
    assert {once(one._replace(base=made.row(one.base) if one.is_delta else NOWHERE)) for one in rows} == wanted
    assert not made.placed
    assert all(one.place in {made.place(row) for row in made.with_id(one.chunk_id)} for one in rows)
