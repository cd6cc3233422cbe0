"""What differs between two revisions: their chunk ids tell which chunks, the chunks which pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from backy.api import CHUNK_SIZE, PAGE_SIZE, Extent
from backy.errors import ChunkDamageError
from backy.extents import joined
from backy.image.chunkmap import ChunkMap
from backy.image.pages import differing_pages
from backy.image.stored import StoredImage
from backy.system.parallel import in_parallel
from backy.system.progress import Steps

_ZEROES = bytes(CHUNK_SIZE)


@dataclass
class Comparison:
    """How one image differs from another one."""

    chunks: int = 0
    """How many chunks differ."""
    extents: list[Extent] = field(default_factory=list)
    """What differs, in order: data, or zeroes now. Those of one kind are joined where they touch."""
    damaged: list[ChunkDamageError] = field(default_factory=list)
    """Chunks that can not be read, so that all of the chunk that they are in is said to differ."""

    @property
    def bytes(self) -> int:
        """How much differs."""
        return sum(extent.length for extent in self.extents)


def compare(old: StoredImage, new: StoredImage, steps: Steps) -> Comparison:
    """Find the pages of `new` that are not as in `old`; chunks that have the same id in both are not read."""
    chunks = list(differing_chunks(old.chunks, new.chunks))
    progress = steps("diff", sum(map(new.chunks.length, chunks)))
    found = Comparison(len(chunks))

    def look(index: int) -> list[Extent] | ChunkDamageError:
        try:
            return list(joined(_pages(index, _content(new, index), _content(old, index, new.chunks.length(index)))))
        except ChunkDamageError as error:
            return error.without_evidence()

    with closing(in_parallel(look, chunks)) as looks:
        for index, difference in zip(chunks, looks, strict=True):
            length = new.chunks.length(index)
            progress(length)
            if isinstance(difference, ChunkDamageError):
                found.damaged.append(difference)
                found.extents.append(Extent(index * CHUNK_SIZE, length, data=True))
            else:
                found.extents += difference
    found.extents = list(joined(found.extents))
    return found


def differing_chunks(old: ChunkMap, new: ChunkMap) -> Iterator[int]:
    """Yield the numbers of the chunks of `new` that `old` has not; what `old` lacks at its end counts as zeroes."""
    for index in range(len(new)):
        if index >= len(old):
            yield from new.data(index)
            return
        if new[index] != old[index] or new.length(index) != old.length(index):
            yield index


def _content(image: StoredImage, index: int, length: int | None = None) -> bytes:
    """Return a chunk, cut or filled with zeroes to `length`."""
    if index >= len(image.chunks):
        return _ZEROES[:length]
    data = image.chunk(index)
    return data if length is None else data[:length].ljust(length, b"\0")


def _pages(index: int, new: bytes, old: bytes) -> Iterator[Extent]:
    """Yield the pages of a chunk that differ, those that are zeroes now as holes."""
    for page in differing_pages(new, old):
        content = new[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
        yield Extent(index * CHUNK_SIZE + page * PAGE_SIZE, len(content), content != _ZEROES[: len(content)])
