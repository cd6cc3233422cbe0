"""Comparing a snapshot with the stored image, chunk by chunk and in parallel."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from heapq import merge
from itertools import groupby

from backy.api import CHUNK_SIZE, Image, Mismatch
from backy.errors import ChunkDamageError
from backy.image.spans import spans, whole
from backy.system.parallel import in_parallel


def data_chunks(image: Image) -> Iterator[int]:
    """Yield the numbers of the chunks in which `image` has data, ascending."""
    for span in spans(whole(image.extents(), image.size), image.size):
        if span.data:
            yield from range(span.start, span.stop)


def chunks_with_data(one: Image, other: Image) -> Iterator[int]:
    """Yield the numbers of the chunks in which either image has data, ascending; elsewhere both read as zeroes."""
    return (index for index, _ in groupby(merge(data_chunks(one), data_chunks(other))))


def compare(
    snapshot: Image, image: Image, indexes: Iterable[int]
) -> Generator[tuple[int, Mismatch | None], None, None]:
    """Read the chunks `indexes` of both and yield the length of each, with what is wrong with it if anything is.

    Whoever stops early closes it, so that no thread reads on from a snapshot that is gone.

    Raises:
        SourceError: the snapshot can not be read; that the image can not be read is a mismatch.
    """

    def one(index: int) -> tuple[int, Mismatch | None]:
        offset = index * CHUNK_SIZE
        length = min(CHUNK_SIZE, snapshot.size - offset)
        expected = snapshot.pread(offset, length)
        try:
            found = image.pread(offset, length)
        except ChunkDamageError as error:
            return length, Mismatch(index, str(error), expected, error.evidence, error)
        if found != expected:
            return length, Mismatch(index, "stored and source differ", expected, found)
        return length, None

    return in_parallel(one, indexes)
