"""Snapshots as a backup reads them: without their hints, or no faster than it may."""

from collections.abc import Sequence

from backy.api import ExactSnapshot, Parallel, SharingSource, Snapshot, Source
from backy.repository.repository import Repository
from backy.system.limits import Limit


class Unhinted:
    """A snapshot that does not tell what differs from the parent, so that core and verifiers read all of it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.size, self.extents, self.pread = snapshot.size, snapshot.extents, snapshot.pread
        if isinstance(snapshot, Parallel):
            self.parallel = snapshot.parallel

    def changes(self) -> None:
        """Return None: the changes are not known."""


class Limited:
    """A snapshot that is read no faster than all of some limits allow."""

    def __init__(self, snapshot: Snapshot, limits: Sequence[Limit]) -> None:
        self.size, self.extents, self.changes = snapshot.size, snapshot.extents, snapshot.changes
        self._pread, self._limits = snapshot.pread, limits
        if isinstance(snapshot, Parallel):
            self.parallel = snapshot.parallel
        if isinstance(snapshot, ExactSnapshot):
            self.changes_within = snapshot.changes_within

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`."""
        for limit in self._limits:
            limit.take(length)
        return self._pread(offset, length)


def limits_of(repository: Repository, source: Source) -> list[Limit]:
    """Return the limits of a backup, and of what its source reads from."""
    return repository.limits("backup", *(source.reads_from if isinstance(source, SharingSource) else ()))
