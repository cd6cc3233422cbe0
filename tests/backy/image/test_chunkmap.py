from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE, Extent, chunk_count, identify
from backy.errors import DamageError
from backy.image.stored import ZERO, ChunkMap, buffer

IDENTITIES = [bytes([number]) * 32 for number in range(1, 4)]


def build(size: int, ids: list[bytes]) -> ChunkMap:
    chunks = ChunkMap(size)
    for index, chunk_id in enumerate(ids):
        chunks[index] = chunk_id
    return chunks


@st.composite
def maps(draw: st.DrawFn) -> ChunkMap:
    count = draw(st.integers(0, 12))
    cut = draw(st.sampled_from([0, 1, CHUNK_SIZE - 1])) if count else 0
    ids = draw(st.lists(st.sampled_from([ZERO, *IDENTITIES]), min_size=count, max_size=count))
    return build(count * CHUNK_SIZE - cut, ids)


def test_the_id_is_the_published_blake3_of_the_content() -> None:
    assert identify(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@pytest.mark.parametrize(
    ("size", "count"),
    [(0, 0), (1, 1), (CHUNK_SIZE - 1, 1), (CHUNK_SIZE, 1), (CHUNK_SIZE + 1, 2), (10 * 2**40, 2621440)],
)
def test_a_short_last_chunk_counts_as_one(size: int, count: int) -> None:
    assert chunk_count(size) == count == len(ChunkMap(size))


def test_only_the_last_chunk_is_shorter() -> None:
    chunks = ChunkMap(2 * CHUNK_SIZE + 5)

    assert [chunks.length(index) for index in range(3)] == [CHUNK_SIZE, CHUNK_SIZE, 5]


@given(maps())
def test_a_map_is_read_as_it_was_written(chunks: ChunkMap) -> None:
    found = ChunkMap.decode(bytearray(chunks.encode()))

    assert found.size == chunks.size
    assert [found[index] for index in range(len(found))] == [chunks[index] for index in range(len(chunks))]
    assert found.digest == chunks.digest == chunks.encode()[-32:].hex()


def test_a_map_that_was_written_can_be_changed_and_written_again() -> None:
    chunks = build(CHUNK_SIZE, IDENTITIES[:1])
    before = bytes(chunks.encode())
    chunks[0] = IDENTITIES[1]

    assert ChunkMap.decode(bytearray(chunks.encode()))[0] == IDENTITIES[1]
    assert chunks.encode() != before


@given(maps(), st.data())
def test_any_flipped_bit_is_noticed(chunks: ChunkMap, data: st.DataObject) -> None:
    content = bytearray(chunks.encode())
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8

    with pytest.raises(DamageError):
        ChunkMap.decode(content)


@given(maps(), st.data())
def test_any_cut_is_noticed(chunks: ChunkMap, data: st.DataObject) -> None:
    content = bytearray(chunks.encode())

    with pytest.raises(DamageError):
        ChunkMap.decode(content[: data.draw(st.integers(0, len(content) - 1))])


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "cut short: 0 bytes"),
        (b'{"mapping": {"0": "c01b5d75bfe6a1fa5bca6e492c5ab09a"}, "size": 4194304}', "not a chunk map of backy 3"),
        (b"backymap" + (2).to_bytes(4, "little") + bytes(60), "version 2"),
        (bytes(ChunkMap(CHUNK_SIZE).encode()) + b"more", "100 bytes instead of 96"),
    ],
)
def test_what_is_no_map_is_told_apart(content: bytes, cause: str) -> None:
    with pytest.raises(DamageError, match=cause):
        ChunkMap.decode(bytearray(content))


@given(maps())
def test_extents_are_the_runs_of_data_and_zero_chunks(chunks: ChunkMap) -> None:
    expected: list[Extent] = []
    for index in range(len(chunks)):
        data = chunks[index] != ZERO
        if expected and expected[-1].data == data:
            expected[-1] = Extent(expected[-1].offset, expected[-1].length + chunks.length(index), data)
        else:
            expected.append(Extent(index * CHUNK_SIZE, chunks.length(index), data))

    assert list(chunks.extents()) == expected


@given(maps(), st.integers(0, 13), st.integers(0, 13))
def test_data_finds_the_chunks_that_are_not_zero(chunks: ChunkMap, start: int, stop: int) -> None:
    expected = [index for index in range(len(chunks)) if chunks[index] != ZERO]

    assert list(chunks.data()) == expected
    assert list(chunks.data(start, stop)) == [index for index in expected if start <= index < stop]
    assert chunks.distinct() == {chunks[index] for index in expected}


def test_data_is_found_at_both_ends_of_long_holes() -> None:
    chunks = ChunkMap(5000 * CHUNK_SIZE)
    places = [0, 1023, 1024, 3000, 4999]
    for index in places:
        chunks[index] = IDENTITIES[0]

    assert list(chunks.data()) == places
    assert list(chunks.data(1, 3001)) == places[1:4]


@given(maps(), st.integers(0, 14 * CHUNK_SIZE))
def test_a_resized_map_keeps_what_fits_and_grows_by_zeroes(chunks: ChunkMap, size: int) -> None:
    before = [chunks[index] for index in range(len(chunks))]
    other = chunks.resized(size)

    assert other.size == size
    assert [other[index] for index in range(len(other))] == [*before, *([ZERO] * len(other))][: len(other)]
    if len(other):
        other[0] = b"x" * 32
    assert [chunks[index] for index in range(len(chunks))] == before
    ChunkMap.decode(bytearray(other.encode()))


@given(maps(), st.sets(st.sampled_from(IDENTITIES)))
def test_places_are_where_the_ids_are(chunks: ChunkMap, wanted: set[bytes]) -> None:
    assert chunks.indexes(wanted) == [index for index in range(len(chunks)) if chunks[index] in wanted]


@pytest.mark.parametrize("size", [0, 1, 16, 17, 40])
@pytest.mark.parametrize("other", [0, 5, 16, 33, 40])
def test_what_another_map_has_at_the_same_place_is_all_that_may_be_left_out(size: int, other: int) -> None:
    chunks, known = ChunkMap(size * CHUNK_SIZE), ChunkMap(other * CHUNK_SIZE)
    for index in range(other):
        known[index] = identify(b"%d" % index)
    for index in range(size):
        chunks[index] = identify(b"%d" % index) if index % 20 else identify(b"new %d" % index)
    known.encode()
    chunks.encode()

    found = chunks.distinct(known)

    assert found <= chunks.distinct()
    assert found | known.distinct() >= chunks.distinct()
    assert chunks.distinct(chunks) <= {chunks[index] for index in range(size // 16 * 16, size)}


@pytest.mark.parametrize("length", [0, 1, 100_000, 5 * 2**20])
def test_a_buffer_has_the_length_that_was_asked_for_and_is_zero(length: int) -> None:
    memory = buffer(length)

    assert len(memory) == length
    assert memory[:] == bytes(length)


def test_a_large_map_in_a_buffer_is_read_changed_and_written_like_any() -> None:
    chunks = ChunkMap(2**18 * CHUNK_SIZE)
    chunks[2**18 - 1] = IDENTITIES[0]
    content = chunks.encode()
    memory = buffer(len(content))
    memory[:] = content[:]
    found = ChunkMap.decode(memory)

    assert list(found.data()) == [2**18 - 1]
    assert found.distinct() == {IDENTITIES[0]}
    assert found.resized(CHUNK_SIZE).size == CHUNK_SIZE
    found[0] = IDENTITIES[1]
    assert ChunkMap.decode(bytearray(found.encode()[:])).distinct() == set(IDENTITIES[:2])


@given(maps(), st.integers(0, 13))
def test_holes_are_found_and_data_is_counted(chunks: ChunkMap, start: int) -> None:
    holes = [index for index in range(len(chunks)) if chunks[index] == ZERO]

    assert chunks.hole(start) == next((index for index in holes if index >= start), len(chunks))
    assert chunks.data_size() == chunks.size - sum(map(chunks.length, holes))


def test_a_hole_far_behind_is_found() -> None:
    chunks = build(5000 * CHUNK_SIZE, [IDENTITIES[0]] * 5000)
    assert chunks.hole(7) == 5000
    chunks[4000] = ZERO
    assert chunks.hole(7) == 4000
