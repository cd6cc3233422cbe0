"""The source. This one reads a file, so that it works at once. Replace that by your storage system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backy.api import Extent, Snapshot, SourceError


class CLASSSource:
    """An image that can be backed up."""

    # `full` reads the image twice. Choose `sample` if reading is slow or expensive.
    verifier = "full"
    """The verifier of jobs that do not choose one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the image for one backup, and release it afterwards.

        `parent` is the revision that the new one builds upon, or None. If you keep a snapshot for each revision, tell
        in `changes` the difference from that of `parent`.
        """
        # Errors that users can do something about are SourceErrors with a text of one line.
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise SourceError(f"{self._path}: {error.strerror}") from error
        try:
            yield CLASSSnapshot(descriptor)
        # A failed backup raises at the yield. Remove here what only this backup needs.
        finally:
            os.close(descriptor)


class CLASSSnapshot:
    """A frozen image. Several threads call `pread` at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.lseek(descriptor, 0, os.SEEK_END)
        """Bytes of the image."""

    def changes(self) -> None:
        """Return the extents that may differ from the parent, or None if they are not known.

        backy then reads only these. With None it reads everything.
        """

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes in order, from the first byte to the last. backy does not read holes."""
        # Extents must not be empty, so an empty image has none.
        if self.size:
            yield Extent(0, self.size, data=True)

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError if there are fewer."""
        # os.pread has no position that threads would share.
        data = os.pread(self._descriptor, length, offset)
        if len(data) != length:
            raise SourceError(f"there are {len(data)} instead of {length} bytes at {offset}")
        return data
