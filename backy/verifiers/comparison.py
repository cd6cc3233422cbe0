"""Compares a snapshot with the stored image, chunk by chunk and in parallel."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from heapq import merge
from itertools import groupby

from backy.api import CHUNK_SIZE, Image, Mismatch, MismatchHandler, Progress
from backy.errors import ChunkDamageError
from backy.image.spans import spans, whole
from backy.system.parallel import in_parallel


def data_chunks(image: Image) -> Iterator[int]:
    """Yield the indexes of the chunks in which `image` has data, ascending.

    Raises:
        SourceError: the extents of the image leave a gap, overlap, or reach beyond its end.
    """
    for span in spans(whole(image.extents(), image.size), image.size):
        if span.data:
            yield from range(span.start, span.stop)


def chunks_with_data(one: Image, other: Image) -> Iterator[int]:
    """Yield the indexes of the chunks in which at least one image has data, ascending."""
    # In all others both images read as zeroes, so there is nothing to compare.
    return (index for index, _ in groupby(merge(data_chunks(one), data_chunks(other))))


def compare(
    snapshot: Image, image: Image, indexes: Iterable[int]
) -> Generator[tuple[int, Mismatch | None], None, None]:
    """Read the chunks `indexes` of both images and yield the length of each, with its mismatch or None.

    Close the generator to stop early: its threads end before it returns, while there still is a snapshot.

    Raises:
        SourceError: the snapshot can not be read.
    """

    def one(index: int) -> tuple[int, Mismatch | None]:
        offset = index * CHUNK_SIZE
        length = min(CHUNK_SIZE, snapshot.size - offset)
        expected = snapshot.pread(offset, length)
        try:
            found = image.pread(offset, length)
        except ChunkDamageError as error:
            # This does not stop the comparison: the core can repair the chunk from the bytes of the source.
            return length, Mismatch(index, str(error), expected, error.evidence, error)
        if found != expected:
            return length, Mismatch(index, "stored and source differ", expected, found)
        return length, None

    return in_parallel(one, indexes)


def compare_all(
    snapshot: Image, image: Image, indexes: Iterable[int], mismatch: MismatchHandler, progress: Progress
) -> bool:
    """Compare the chunks `indexes`, hand over each mismatch, and return whether there was none.

    Raises:
        SourceError: the snapshot can not be read.
    """
    right = True
    # Closed in any case: `mismatch` may raise, and the threads must not outlive the snapshot.
    with closing(compare(snapshot, image, indexes)) as compared:
        for length, found in compared:
            if found is not None:
                right = False
                mismatch(found)
            progress(length)
    return right
