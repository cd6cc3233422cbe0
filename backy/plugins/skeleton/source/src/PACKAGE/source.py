"""The source itself. This one reads a file, so that it works at once: put your storage system in its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backy.api import Extent, Snapshot, SourceError


class CLASSSource:
    """Where an image comes from."""

    verifier = "full"
    """How backups are checked unless a job says otherwise. `sample` suits what is slow to read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the image for one backup, and let go of it whatever happens."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise SourceError(f"{self._path}: {error.strerror}") from error
        try:
            yield CLASSSnapshot(descriptor)
        finally:
            os.close(descriptor)


class CLASSSnapshot:
    """A frozen image. Several threads read it at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.lseek(descriptor, 0, os.SEEK_END)

    def changes(self) -> None:
        """Tell what changed since the revision before, if you can: nothing else is read then. None: everything is."""

    def extents(self) -> Iterator[Extent]:
        """Tell where there is data. Holes are not read."""
        if self.size:
            yield Extent(0, self.size, data=True)

    def pread(self, offset: int, length: int) -> bytes:
        """Read exactly so many bytes."""
        data = os.pread(self._descriptor, length, offset)
        if len(data) != length:
            raise SourceError(f"there are {len(data)} instead of {length} bytes at {offset}")
        return data
