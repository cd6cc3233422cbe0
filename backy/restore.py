"""Writing a revision to where it is wanted: a target with random access, or a stream."""

from __future__ import annotations

from backy.api import CHUNK_SIZE, Progress, RestoreTarget
from backy.durable import write_all
from backy.image import StoredImage
from backy.pages import differing_pages, runs
from backy.pipeline import in_parallel

_ZEROES = bytes(CHUNK_SIZE)


def restore(image: StoredImage, target: RestoreTarget, progress: Progress) -> None:
    """Write `image` to `target`; holes stay holes, and pages of zeroes are not written.

    Raises:
        ChunkDamageError: a chunk can not be read; what is in the target is incomplete.
    """

    def copy(index: int) -> int:
        data = image.chunk(index)
        start = index * CHUNK_SIZE
        end = 0
        for offset, length in runs(differing_pages(data, _ZEROES[: len(data)]), len(data)):
            if offset > end:
                target.zero(start + end, offset - end)
            target.pwrite(data[offset : offset + length], start + offset)
            end = offset + length
        if end < len(data):
            target.zero(start + end, len(data) - end)
        return len(data)

    for extent in image.extents():
        if not extent.data:
            target.zero(extent.offset, extent.length)
            progress(extent.length)
    for length in in_parallel(copy, image.chunks.data()):
        progress(length)


def stream(image: StoredImage, descriptor: int, progress: Progress) -> None:
    """Write `image` to a pipe, from the first byte to the last.

    Raises:
        ChunkDamageError: a chunk can not be read; the stream ends before it.
        OSError: nobody reads the pipe any more.
    """
    for data in in_parallel(image.chunk, range(len(image.chunks))):
        write_all(descriptor, data)
        progress(len(data))
