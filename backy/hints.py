"""Doing without what a source tells of changes."""

from __future__ import annotations

from collections.abc import Iterable

from backy.api import Extent, Snapshot


class Unhinted:
    """A snapshot that does not tell what changed, so that core and verifiers look at all of it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @property
    def size(self) -> int:
        """Bytes from the first to the last."""
        return self._snapshot.size

    def extents(self) -> Iterable[Extent]:
        """Yield data and holes as the snapshot does."""
        return self._snapshot.extents()

    def changes(self) -> None:
        """Tell nothing."""

    def pread(self, offset: int, length: int) -> bytes:
        """Read as the snapshot does."""
        return self._snapshot.pread(offset, length)
