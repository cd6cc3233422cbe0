"""Tells what a restore would take: bytes to read and write, time, and chunks that are known to be damaged."""

from collections.abc import Callable
from dataclasses import dataclass, field

from backy.api import CHUNK_SIZE
from backy.errors import ChunkDamageError
from backy.image.stored import StoredImage, attempts
from backy.system.progress import Steps

_SAMPLE = 32
"""Chunks to read to learn how fast reading is. With two processors it takes a fifth of a second."""


@dataclass
class Forecast:
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
    damaged: dict[int, ChunkDamageError] = field(default_factory=dict)
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
