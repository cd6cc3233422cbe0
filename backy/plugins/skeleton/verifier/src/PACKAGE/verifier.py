"""The verifier itself. This one compares chunks one after the other: put what you want to know in its place."""

from __future__ import annotations

from backy.api import (
    CHUNK_SIZE,
    ChunkDamageError,
    Image,
    Mismatch,
    MismatchHandler,
    Progress,
    Report,
    Snapshot,
    chunk_count,
)


class CLASSVerifier:
    """Compares every so many chunks of a fresh revision with the source."""

    def __init__(self, every: int) -> None:
        self._every = every

    def verify(self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress) -> Report:
        """Hand over each difference. What follows from it is decided by backy."""
        total = chunk_count(snapshot.size)
        indexes = range(0, total, self._every)
        for index in indexes:
            offset = index * CHUNK_SIZE
            length = min(CHUNK_SIZE, snapshot.size - offset)
            expected = snapshot.pread(offset, length)  # a SourceError ends the verification, as it should
            if found := _difference(index, expected, image):
                mismatch(found)
            progress(length)
        return Report("NAME", checked=len(indexes), total=total)


def _difference(index: int, expected: bytes, image: Image) -> Mismatch | None:
    """Compare a stored chunk with the source's. One that can not be read is damage, and no error of the verifier."""
    try:
        found = image.pread(index * CHUNK_SIZE, len(expected))
    except ChunkDamageError as error:
        return Mismatch(index, str(error), expected, error.evidence, error)
    return None if found == expected else Mismatch(index, "stored and source differ", expected, found)
