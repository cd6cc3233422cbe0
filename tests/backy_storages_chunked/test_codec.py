from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE, PAGE_SIZE
from backy.pages import differing_pages
from backy_storages_chunked.codec import (
    NO_COMPRESSION,
    Codec,
    Delta,
    apply_delta,
    decode_delta,
    encode_delta,
    make_delta,
)

PAGES = CHUNK_SIZE // PAGE_SIZE
LENGTHS = st.one_of(st.integers(1, 5 * PAGE_SIZE), st.integers(1, 5).map(lambda count: count * PAGE_SIZE))


def content(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


@st.composite
def changed_chunks(draw) -> tuple[bytes, bytes]:
    """A base and a chunk that differs from it in some pages, and perhaps in length."""
    base = content(draw(st.integers(0, 3)), draw(LENGTHS))
    length = draw(LENGTHS)
    new = bytearray(base[:length].ljust(length, b"\0"))
    for page in draw(st.sets(st.integers(0, 4))):
        start = page * PAGE_SIZE
        new[start : start + PAGE_SIZE] = bytes([page]) * len(new[start : start + PAGE_SIZE])
    return base, bytes(new)


@given(changed_chunks(), st.integers(0, 2**64 - 1))
def test_a_delta_over_its_base_gives_the_chunk(pair: tuple[bytes, bytes], spent: int) -> None:
    base, new = pair
    delta = decode_delta(encode_delta(make_delta(new, differing_pages(new, base), spent)))

    assert apply_delta(delta, base) == new
    assert delta.spent == spent
    assert all(new[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] == delta.pages[page] for page in delta.pages)


@given(st.binary(max_size=200))
def test_garbage_is_no_delta(garbage: bytes) -> None:
    for attempt in (garbage, b"backydlt" + garbage):
        try:
            delta = decode_delta(attempt)
        except ValueError:
            continue
        assert encode_delta(delta) == attempt


@given(changed_chunks(), st.data())
def test_a_delta_that_is_not_whole_is_refused_or_another_one(pair: tuple[bytes, bytes], data) -> None:
    base, new = pair
    whole = encode_delta(make_delta(new, differing_pages(new, base), 7))
    start = data.draw(st.integers(0, len(whole)))
    attempt = whole[:start] + data.draw(st.binary(max_size=8)) + whole[data.draw(st.integers(start, len(whole))) :]
    try:
        delta = decode_delta(attempt)
    except ValueError:
        return
    assert encode_delta(delta) == attempt
    assert len(apply_delta(delta, base)) == delta.length <= CHUNK_SIZE


@pytest.mark.parametrize(
    ("length", "pages"),
    [
        (PAGE_SIZE, {1: b"x" * PAGE_SIZE}),
        (PAGE_SIZE + 5, {1: b"x" * 6}),
        (2 * PAGE_SIZE, {1: b"x" * PAGE_SIZE, 0: b"x" * PAGE_SIZE}),
        (CHUNK_SIZE + 1, {}),
        (0, {0: b""}),
        (PAGE_SIZE, {0: b"x" * (PAGE_SIZE - 1)}),
    ],
    ids=["beyond", "last page too long", "not ascending", "longer than a chunk", "empty", "page cut short"],
)
def test_an_impossible_delta_is_refused(length: int, pages: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="delta"):
        decode_delta(encode_delta(Delta(length, 0, pages)))


def test_a_page_twice_is_refused() -> None:
    whole = encode_delta(Delta(2 * PAGE_SIZE, 0, {0: b"x" * PAGE_SIZE, 1: b"y" * PAGE_SIZE}))
    with pytest.raises(ValueError, match="delta"):
        decode_delta(whole[:26] + whole[24:26] + whole[28:])


def test_the_longest_delta_can_be_read_back() -> None:
    data = content(1, CHUNK_SIZE)
    codec = Codec(1)
    frame = codec.compress(encode_delta(make_delta(data, range(PAGES), 2**63)))

    assert apply_delta(decode_delta(codec.decompress(frame)), b"") == data


@pytest.mark.parametrize("level", [NO_COMPRESSION, 1, 3, 19])
def test_an_incompressible_chunk_costs_its_size_and_110_bytes_at_most(level: int) -> None:
    data = content(2, CHUNK_SIZE)
    frame = Codec(level).compress(data)

    assert len(frame) <= len(data) + 110
    assert Codec(1).decompress(frame) == data


def test_a_higher_level_and_none_at_all_do_what_they_say() -> None:
    data = " ".join(random.Random(1).choices(["page", "chunk", "job", "extent", "image"], k=50_000)).encode()
    sizes = [len(Codec(level).compress(data)) for level in (NO_COMPRESSION, 1, 19)]

    assert sizes[0] >= len(data) > sizes[1] > sizes[2]


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_noticed(position: int, bit: int) -> None:
    codec = Codec(1)
    data = content(3, 5000) + bytes(5000)
    frame = bytearray(codec.compress(data))
    frame[position % len(frame)] ^= 1 << bit
    try:
        found = codec.decompress(bytes(frame))
    except ValueError:
        return
    assert found == data


@given(st.binary(max_size=100))
def test_garbage_is_no_frame(garbage: bytes) -> None:
    for attempt in (garbage, zstandard.FRAME_HEADER + garbage):
        with pytest.raises(ValueError, match="zstd frame"):
            Codec(1).decompress(attempt)


def test_a_frame_that_is_cut_short_or_followed_by_more_is_refused() -> None:
    codec = Codec(1)
    frame = codec.compress(b"content")
    for wrong in (frame[:-1], frame + b"x", frame + frame, b""):
        with pytest.raises(ValueError, match="zstd frame"):
            codec.decompress(wrong)


def test_a_frame_that_claims_more_than_a_chunk_is_refused_before_memory_is_taken() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(64 * 2**20))
    with pytest.raises(ValueError, match="impossible length"):
        Codec(1).decompress(bomb)


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"write_checksum": True}, True),
        ({"write_checksum": True, "level": 19}, True),
        ({"write_checksum": False}, False),
        ({"write_checksum": True, "write_content_size": False}, False),
        ({"write_checksum": True, "window": 27}, False),
    ],
)
def test_a_frame_of_others_is_stored_if_it_is_like_ours(options: dict[str, int], taken: bool) -> None:
    """Whoever restores with the program `zstd` takes no larger window for granted."""
    content, (window, level) = b"content " * 1000, (options.pop("window", 0), options.pop("level", 1))
    parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=window, **options)
    # a frame that is made piece by piece has the window in its header
    made = zstandard.ZstdCompressor(compression_params=parameters).compressobj(len(content) if not window else -1)
    frame = made.compress(content) + made.flush()
    codec = Codec(1)
    codec.offer(content, frame)
    assert (codec.compress(content) == frame) is taken
    assert codec.decompress(codec.compress(content)) == content
    assert codec.compress(b"content " * 1000) == Codec(1).compress(content)
