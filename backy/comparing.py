"""Compares a snapshot with the stored image, chunk by chunk and in parallel. Verifiers may use all of it.

A stored chunk that can not be read is no error here: it is a `Mismatch` with its `ChunkDamageError`, which the core
repairs from the bytes of the source. An error of the snapshot ends the comparison.
"""

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
    """Read the chunks `indexes` of both images and yield the bytes of each, with its mismatch or None.

    The chunks come in the order of `indexes`, and are read by several threads. They are as long as the snapshot has
    them, so both images must have the same size, as a fresh revision and its snapshot have.

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

    # not more threads than the core uses elsewhere: a source need not stand more
    return in_parallel(one, indexes)


def compare_all(
    snapshot: Image, image: Image, indexes: Iterable[int], mismatch: MismatchHandler, progress: Progress
) -> None:
    """Compare the chunks `indexes`, and call `mismatch` for each that differs.

    Calls `progress` with the bytes of every chunk. Both are called by the thread that called this function.

    Raises:
        SourceError: the snapshot can not be read.
    """
    # Closed in any case: `mismatch` may raise, and the threads must not outlive the snapshot.
    with closing(compare(snapshot, image, indexes)) as compared:
        for length, found in compared:
            if found is not None:
                mismatch(found)
            progress(length)
