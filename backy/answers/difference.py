"""Finds the pages in which two revisions differ.

Ids tell which chunks differ. Only those are read, and compared page by page.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from backy.api import CHUNK_SIZE, PAGE_SIZE, Extent
from backy.errors import ChunkDamageError
from backy.extents import joined
from backy.image.stored import StoredImage, attempts
from backy.pages import differing_pages
from backy.system.progress import Steps

_ZEROES = bytes(CHUNK_SIZE)


@dataclass
class Comparison:
    """How one image differs from another."""

    chunks: int = 0
    """Number of chunks that differ."""
    extents: list[Extent] = field(default_factory=list)
    """Ranges that differ, ascending, joined where they touch. A hole reads as zeroes in the new image."""
    damaged: list[ChunkDamageError] = field(default_factory=list)
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
