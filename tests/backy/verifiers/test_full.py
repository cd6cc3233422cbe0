from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest

from backy.api import (
    CHUNK_SIZE,
    ChunkDamageError,
    ConfigError,
    Coverage,
    Extent,
    Mismatch,
    SourceError,
    chunk_count,
)
from backy.comparing import chunks_with_data, data_chunks
from backy.verifiers.verifiers import FullVerifier, full

SIZE = 3 * CHUNK_SIZE + 10


@dataclass
class Memory:
    """An image of bytes whose extents are what they are said to be."""

    content: bytes
    holes: set[int] = field(default_factory=set)
    damaged: set[int] = field(default_factory=set)
    read: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.content)

    def extents(self) -> Iterable[Extent]:
        for offset in range(0, self.size, CHUNK_SIZE):
            yield Extent(offset, min(CHUNK_SIZE, self.size - offset), data=offset // CHUNK_SIZE not in self.holes)

    def changes(self) -> None:
        """Tell nothing."""

    def pread(self, offset: int, length: int) -> bytes:
        index = offset // CHUNK_SIZE
        self.read.append(index)
        if index in self.damaged:
            raise ChunkDamageError(bytes([index]) * 32, "bad")
        assert len(self.content) >= offset + length
        return self.content[offset : offset + length]


def verify(snapshot: Memory, image: Memory, compared: Sequence[int] = ()) -> tuple[list[Mismatch], list[int], int, int]:
    found: list[Mismatch] = []
    progress: list[int] = []
    coverage = Coverage(1, compared or [0] * chunk_count(snapshot.size))
    report = FullVerifier().verify(snapshot, image, found.append, progress.append, coverage)
    assert report.verifier == "full"
    return found, progress, len(report.compared), chunk_count(snapshot.size)


def test_what_was_compared_for_this_revision_is_not_read_again() -> None:
    snapshot, image = Memory(b"x" * SIZE), Memory(b"x" * SIZE)
    compared = [0] * chunk_count(SIZE)
    compared[1] = 1
    found, _, checked, total = verify(snapshot, image, compared)
    assert (found, checked, 1 in snapshot.read + image.read, set(image.read) == {*range(total)} - {1}) == (
        *([], total, False, True),
    )


def test_equal_images_are_verified_in_full() -> None:
    found, progress, checked, total = verify(Memory(b"x" * SIZE), Memory(b"x" * SIZE))

    assert (found, progress, checked, total) == ([], [CHUNK_SIZE] * 3 + [10], 4, 4)


def test_one_different_byte_is_found_with_both_blocks() -> None:
    content = bytearray(SIZE)
    content[SIZE - 1] = 1
    found, _, checked, _ = verify(Memory(bytes(content)), Memory(bytes(SIZE)))

    assert found == [Mismatch(3, "stored and source differ", bytes(9) + b"\1", bytes(10))]
    assert checked == 4


def test_a_chunk_is_compared_if_only_one_side_has_data_there() -> None:
    snapshot, image = Memory(bytes(SIZE), holes={0, 1, 2}), Memory(b"x" * SIZE, holes={0, 2, 3})
    found, _, checked, total = verify(snapshot, image)

    assert [mismatch.index for mismatch in found] == [1, 3]
    assert sorted(snapshot.read) == [1, 3]
    assert checked == total == 4


def test_a_damaged_chunk_is_a_mismatch_that_keeps_the_sources_bytes() -> None:
    found, _, _, _ = verify(Memory(b"x" * SIZE), Memory(b"x" * SIZE, damaged={1}))

    assert [(mismatch.index, mismatch.expected, mismatch.found) for mismatch in found] == [(1, b"x" * CHUNK_SIZE, None)]
    assert "bad" in found[0].cause


def test_a_source_that_can_not_be_read_is_no_mismatch() -> None:
    class Gone(Memory):
        def pread(self, offset: int, length: int) -> bytes:
            raise SourceError("gone")

    with pytest.raises(SourceError, match="gone"):
        verify(Gone(b"x" * SIZE), Memory(b"x" * SIZE))


def test_extents_with_a_gap_are_never_taken_for_all_of_an_image() -> None:
    memory = Memory(bytes(SIZE))
    memory.extents = lambda: [Extent(CHUNK_SIZE, SIZE - CHUNK_SIZE, data=True)]

    with pytest.raises(SourceError, match="tells nothing"):
        list(data_chunks(memory))


def test_chunks_with_data_ascend_and_are_named_once() -> None:
    one, other = Memory(bytes(SIZE), holes={1}), Memory(bytes(SIZE), holes={1, 2})

    assert list(chunks_with_data(one, other)) == [0, 2, 3]


def test_an_empty_image_is_verified() -> None:
    assert verify(Memory(b""), Memory(b"")) == ([], [], 0, 0)


def test_it_has_no_options() -> None:
    assert isinstance(full.backy_verifier(config={"type": "full"}), FullVerifier)
    with pytest.raises(ConfigError, match=r"config.verifier.sample: unknown key"):
        full.backy_verifier(config={"type": "full", "sample": 3})
