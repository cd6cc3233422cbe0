"""The verifier itself. This one compares some chunks: put what you want to know in its place."""

from __future__ import annotations

from backy.api import Coverage, Image, MismatchHandler, Progress, Report, Snapshot, chunk_count
from backy.comparing import compare_all


class CLASSVerifier:
    """Compares every so many chunks of a fresh revision with the source."""

    def __init__(self, every: int) -> None:
        self._every = every

    def verify(
        self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress, coverage: Coverage
    ) -> Report:
        """Hand over each difference. What follows from it is decided by backy."""
        # Others the next time: `coverage` also has a method `due` for verifiers that take turns.
        indexes = range(coverage.seq % self._every, chunk_count(snapshot.size), self._every)
        # A chunk that can not be read is handed over, too. A SourceError ends the verification, as it should.
        compare_all(snapshot, image, indexes, mismatch, progress)
        return Report("NAME", indexes)
