"""What a restore would take: how much is read and written, how long that lasts, and what is known to be missing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from backy.api import CHUNK_SIZE
from backy.errors import ChunkDamageError
from backy.image.stored import StoredImage
from backy.system.parallel import in_parallel
from backy.system.progress import Steps

_SAMPLE = 32
"""Chunks that are read to learn how fast reading is: with two processors, a fifth of a second."""


@dataclass
class Forecast:
    """What a restore of one image would take."""

    size: int
    """Bytes of the image."""
    data: int
    """Bytes that are written; the rest is zeroes."""
    stored: int | None = 0
    """Bytes of files that are read for it; None if the storage can not tell."""
    sampled: int = 0
    """Bytes of data that were read to learn how fast that is."""
    seconds: float = 0.0
    """How long that took."""
    damaged: dict[int, ChunkDamageError] = field(default_factory=dict)
    """By number, the chunks of which it is known that they can not be restored."""

    @property
    def estimate(self) -> float | None:
        """Seconds that it takes to read and check all data; None if none could be read."""
        return self.seconds * self.data / self.sampled if self.sampled else None


def forecast(image: StoredImage, steps: Steps, monotonic: Callable[[], float]) -> Forecast:
    """Look whether all chunks of an image are there, and read a few that are spread over it."""
    chunks = list(image.chunks.data())
    found = Forecast(image.size, sum(map(image.chunks.length, chunks)))
    progress = steps("look", len(chunks) * CHUNK_SIZE)

    def probe(index: int) -> int | ChunkDamageError | None:
        try:
            return image.reader.probe(index, image.chunks[index])
        except ChunkDamageError as error:
            return error.without_evidence()

    def read(index: int) -> int | ChunkDamageError:
        try:
            return len(image.chunk(index))
        except ChunkDamageError as error:
            return error.without_evidence()

    with closing(in_parallel(probe, chunks)) as sizes:
        for index, size in zip(chunks, sizes, strict=True):
            progress(CHUNK_SIZE)
            if isinstance(size, ChunkDamageError):
                found.damaged[index] = size
            elif found.stored is not None:
                found.stored = None if size is None else found.stored + size
    sample = [index for index in chunks[:: max(len(chunks) // _SAMPLE, 1)] if index not in found.damaged]
    begin = monotonic()
    with closing(in_parallel(read, sample)) as lengths:
        for index, length in zip(sample, lengths, strict=True):
            if isinstance(length, ChunkDamageError):
                found.damaged[index] = length
            else:
                found.sampled += length
    found.seconds = monotonic() - begin
    return found
