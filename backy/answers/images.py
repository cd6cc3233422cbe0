"""What people ask of stored images: what a restore of one would take, and in which pages two of them differ."""

from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec

from backy.api import CHUNK_SIZE, PAGE_SIZE, Extent
from backy.errors import ChunkDamageError
from backy.extents import joined
from backy.image.stored import StoredImage, attempts
from backy.pages import differing_pages
from backy.system.progress import Steps

_SAMPLE = 32
"""Chunks to read to learn how fast reading is. With two processors it takes a fifth of a second."""
_ZEROES = bytes(CHUNK_SIZE)


class Forecast(msgspec.Struct):
    """What a restore of one image would take."""

    size: int
    """Bytes of the image."""
    data: int
    """Bytes to write; the rest is zeroes."""
    stored: int | None = 0
    """Bytes of files to read; None if the storage does not know."""
    sampled: int = 0
    """Bytes of data that were read to learn how fast reading is."""
    seconds: float = 0.0
    """Time that reading them took."""
    damaged: dict[int, ChunkDamageError] = {}
    """The damage that is known, by index."""

    @property
    def estimate(self) -> float | None:
        """Seconds to read and check all data; None if no chunk could be read."""
        return self.seconds * self.data / self.sampled if self.sampled else None


def forecast(image: StoredImage, steps: Steps, monotonic: Callable[[], float]) -> Forecast:
    """Look for the files of all chunks of an image, and read a few chunks from all over it.

    Args:
        image: The image to restore.
        steps: Called as the search begins.
        monotonic: Returns seconds.
    """
    chunks = list(image.chunks.data())
    found = Forecast(image.size, sum(map(image.chunks.length, chunks)))
    progress = steps("look", len(chunks) * CHUNK_SIZE)
    for index, stored in attempts(lambda index: image.reader.probe(index, image.chunks[index]), chunks):
        progress(CHUNK_SIZE)
        if isinstance(stored, ChunkDamageError):
            # Evidence is for reports, and that of many chunks would fill the memory.
            found.damaged[index] = stored.without_evidence()
        elif found.stored is not None:
            found.stored = None if stored is None else found.stored + stored
    # Spread over the image: neighbours often lie in one place of the disk and are read faster than others.
    sample = [index for index in chunks[:: max(len(chunks) // _SAMPLE, 1)] if index not in found.damaged]
    begin = monotonic()
    for index, length in attempts(lambda index: len(image.chunk(index)), sample):
        if isinstance(length, ChunkDamageError):
            found.damaged[index] = length.without_evidence()
        else:
            found.sampled += length
    found.seconds = monotonic() - begin
    return found


class Comparison(msgspec.Struct):
    """How one image differs from another."""

    chunks: int = 0
    """Number of chunks that differ."""
    extents: list[Extent] = []
    """Ranges that differ, ascending, joined where they touch. A hole reads as zeroes in the new image."""
    damaged: list[ChunkDamageError] = []
    """Damage of chunks of either image. Such a chunk counts as differing from end to end."""

    @property
    def bytes(self) -> int:
        """Total length of the extents."""
        return sum(extent.length for extent in self.extents)


def compare(old: StoredImage, new: StoredImage, steps: Steps) -> Comparison:
    """Find the pages of `new` that differ from those of `old`."""
    chunks = list(new.chunks.differing(old.chunks))
    progress = steps("diff", sum(map(new.chunks.length, chunks)))
    found = Comparison(len(chunks))

    def look(index: int) -> list[Extent]:
        length = new.chunks.length(index)
        return list(joined(_pages(index, _content(new, index, length), _content(old, index, length))))

    with closing(attempts(look, chunks, new.threads)) as looks:
        for index, difference in looks:
            length = new.chunks.length(index)
            progress(length)
            if isinstance(difference, ChunkDamageError):
                # Any number of chunks may be damaged, and nobody looks at what they hold.
                found.damaged.append(difference.without_evidence())
                found.extents.append(Extent(index * CHUNK_SIZE, length, data=True))
            else:
                found.extents += difference
    # Once more: above, extents were joined within each chunk only.
    found.extents = list(joined(found.extents))
    return found


def _content(image: StoredImage, index: int, length: int) -> bytes:
    """Return a chunk, cut or filled with zeroes to `length` bytes."""
    data = image.chunk(index) if index < len(image.chunks) else b""
    return data[:length].ljust(length, b"\0")


def _pages(index: int, new: bytes, old: bytes) -> Iterator[Extent]:
    """Yield the pages of a chunk that differ; pages of zeroes in `new` are holes."""
    for page in differing_pages(new, old):
        content = new[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
        yield Extent(index * CHUNK_SIZE + page * PAGE_SIZE, len(content), content != _ZEROES[: len(content)])
