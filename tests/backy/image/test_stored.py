from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE, ChunkDamageError, StorageError, identify
from backy.image.stored import ChunkMap, StoredImage

SIZE = 2 * CHUNK_SIZE + 1234
CONTENT = random.Random(7).randbytes(CHUNK_SIZE) + bytes(CHUNK_SIZE) + random.Random(8).randbytes(1234)


class Shelf:
    """A storage's reader over a dictionary."""

    def __init__(self) -> None:
        self.chunks: dict[bytes, bytes] = {}

    def read(self, index: int, chunk_id: bytes) -> bytes:
        return self.chunks[chunk_id]


def stored() -> tuple[StoredImage, Shelf]:
    shelf, chunks = Shelf(), ChunkMap(SIZE)
    for index in (0, 2):
        data = CONTENT[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]
        chunks[index] = identify(data)
        shelf.chunks[chunks[index]] = data
    return StoredImage(chunks, shelf), shelf


@given(st.integers(0, SIZE), st.integers(0, SIZE))
def test_any_range_reads_as_it_was_stored(one: int, other: int) -> None:
    image, _ = stored()
    start, end = sorted((one, other))

    assert image.pread(start, end - start) == CONTENT[start:end]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (0, SIZE + 1), (SIZE, 1), (SIZE + 1, 0)])
def test_a_range_outside_of_the_image_is_refused(offset: int, length: int) -> None:
    image, _ = stored()

    with pytest.raises(StorageError, match="outside of the image"):
        image.pread(offset, length)


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], b"x" + CONTENT[1:CHUNK_SIZE], CONTENT[: CHUNK_SIZE + 1]])
def test_a_chunk_that_is_not_what_its_id_says_is_never_handed_out(content: bytes) -> None:
    image, shelf = stored()
    chunk_id = image.chunks[0]
    shelf.chunks[chunk_id] = content

    with pytest.raises(ChunkDamageError, match=chunk_id.hex()[:12]):
        image.pread(5, 5)
    assert image.pread(CHUNK_SIZE, 5) == bytes(5)


def test_extents_are_those_of_the_map() -> None:
    image, _ = stored()

    assert image.size == SIZE
    assert [extent.data for extent in image.extents()] == [True, False, True]
