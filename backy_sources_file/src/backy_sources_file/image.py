"""Reads an image file or a block device without its holes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backy.api import Consistency, Extent, SourceError
from backy.durable import closed_at_end, pread_all
from backy.errors import raising
from backy_sources_file.watching import WriteWatch


@contextmanager
def opened(path: Path) -> Iterator[OpenFile]:
    """Open an image while the context lasts.

    Raises:
        SourceError: it can not be opened, or is neither a file nor a block device.
    """
    with raising(SourceError, f"source {path}"):
        # O_NONBLOCK: opening a pipe by mistake must not wait for somebody who writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with closed_at_end(descriptor):
        yield OpenFile(path, descriptor)


class OpenFile:
    """An open image or its frozen clone. The size is that at the time of opening.

    `changes` has the ranges that differ from an earlier image, or None. `watch` notes who writes; None for a clone,
    which nobody writes to. Several threads may read at once.
    """

    def __init__(
        self, path: Path, descriptor: int, changes: Iterable[Extent] | None = None, watch: WriteWatch | None = None
    ) -> None:
        self._path = path
        self._changes = changes
        self._watch = watch
        self.descriptor = descriptor
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "neither a file nor a block device"
            raise SourceError(f"source {path} is {kind}; it must be an image file or a block device")
        self.is_regular = stat.S_ISREG(mode)
        # fstat has no size of a block device.
        self.size = os.lseek(descriptor, 0, os.SEEK_END)

    @property
    def consistency(self) -> Consistency:
        """What the image is like: a clone is made in one step, and what is no clone is watched."""
        return self._watch.consistency if self._watch else "crash"

    @property
    def advice(self) -> str:
        """What to do if the image is written to while it is read."""
        if self.is_regular:
            return "shut down what writes to it, or let it lie on btrfs or XFS, where the source can freeze it"
        return "stop what writes to it, or back up a snapshot of it, which is a device of its own with LVM"

    def changes(self) -> Iterable[Extent] | None:
        """Return the ranges that differ from the parent revision; None if they are not known."""
        return self._changes

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes as the file system knows them; a block device has data only."""
        position = 0
        while position < self.size:
            data = self._next(os.SEEK_DATA, position) if self.is_regular else position
            if data > position:
                yield Extent(position, data - position, data=False)
            if data == self.size:
                return
            position = self._next(os.SEEK_HOLE, data) if self.is_regular else self.size
            yield Extent(data, position - data, data=True)

    def _next(self, kind: int, position: int) -> int:
        """Return where data or a hole begins, from `position` on; the size if there is none."""
        try:
            return min(os.lseek(self.descriptor, position, kind), self.size)
        except OSError as error:
            # ENXIO: there is no data any more, or the position is beyond the end.
            if error.errno != errno.ENXIO:
                raise SourceError(f"source {self._path}: {error.strerror}") from error
        if os.fstat(self.descriptor).st_size < self.size:
            raise self._shrank()
        return self.size

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError if they can not be read."""
        try:
            data = pread_all(self.descriptor, length, offset)
        except OSError as error:
            raise SourceError(f"source {self._path}: {error.strerror} at {offset}") from error
        if len(data) < length:
            raise self._shrank()
        return data

    def _shrank(self) -> SourceError:
        return SourceError(f"source {self._path} shrank below {self.size} bytes while it was read")
