"""Writing a revision to where it is wanted: a target with random access, or a stream."""

from __future__ import annotations

from backy.api import CHUNK_SIZE, Progress, RestoreTarget
from backy.chunkmap import identify
from backy.durable import write_all
from backy.image import StoredImage
from backy.pages import pages_with_data, runs
from backy.pipeline import in_parallel
from backy.target import ReadableTarget


def restore(image: StoredImage, target: RestoreTarget, progress: Progress) -> None:
    """Write `image` to `target`; holes stay holes, and pages of zeroes are not written.

    Raises:
        ChunkDamageError: a chunk can not be read; what is in the target is incomplete.
    """
    for extent in image.extents():
        if not extent.data:
            target.zero(extent.offset, extent.length)
            progress(extent.length)

    def copy(index: int) -> int:
        return _write(target, index * CHUNK_SIZE, image.chunk(index))

    for length in in_parallel(copy, image.chunks.data()):
        progress(length)


def resume(image: StoredImage, target: ReadableTarget, progress: Progress) -> int:
    """Make `target` what `image` is, leaving alone what is so already; return how many bytes of data that are.

    Raises as `restore` does.
    """
    for extent in image.extents():
        if not extent.data:
            target.zero(extent.offset, extent.length)
            progress(extent.length)

    def copy(index: int) -> tuple[int, int]:
        offset, length = index * CHUNK_SIZE, image.chunks.length(index)
        if identify(target.pread(offset, length)) == image.chunks[index]:
            return length, length
        return _write(target, offset, image.chunk(index)), 0

    kept = 0
    for length, right in in_parallel(copy, image.chunks.data()):
        kept += right
        progress(length)
    return kept


def _write(target: RestoreTarget, start: int, data: bytes) -> int:
    """Write a chunk, or zero what is zero in it; return its length."""
    end = 0
    for offset, length in runs(pages_with_data(data), len(data)):
        if offset > end:
            target.zero(start + end, offset - end)
        target.pwrite(data[offset : offset + length], start + offset)
        end = offset + length
    if end < len(data):
        target.zero(start + end, len(data) - end)
    return len(data)


def stream(image: StoredImage, descriptor: int, progress: Progress) -> None:
    """Write `image` to a pipe, from the first byte to the last.

    Raises:
        ChunkDamageError: a chunk can not be read; the stream ends before it.
        OSError: nobody reads the pipe any more.
    """
    for data in in_parallel(image.chunk, range(len(image.chunks))):
        write_all(descriptor, data)
        progress(len(data))
