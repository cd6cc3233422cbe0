"""The verifier itself. This one compares some chunks: put what you want to know in its place."""

from __future__ import annotations

from backy.api import Image, MismatchHandler, Progress, Report, Snapshot, chunk_count
from backy.comparing import compare_all


class CLASSVerifier:
    """Compares every so many chunks of a fresh revision with the source."""

    def __init__(self, every: int) -> None:
        self._every = every

    def verify(self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress) -> Report:
        """Hand over each difference. What follows from it is decided by backy."""
        total = chunk_count(snapshot.size)
        indexes = range(0, total, self._every)
        # A chunk that can not be read is handed over, too. A SourceError ends the verification, as it should.
        compare_all(snapshot, image, indexes, mismatch, progress)
        return Report("NAME", checked=len(indexes), total=total)
