"""Reads the device of a snapshot."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backy.api import Consistency, Extent, SourceError
from backy.durable import closed_at_end
from backy.errors import raising


class Device:
    """An open device whose content does not change. `failed` finds out why it can not be read; None if it can not tell.

    Several threads may read at once.
    """

    consistency: Consistency = "crash"
    """What the image is like: LVM holds writes back while it makes a snapshot."""

    def __init__(self, descriptor: int, what: str, failed: Callable[[], str | None]) -> None:
        self._descriptor = descriptor
        self._what = what
        self._failed = failed
        self.size = os.lseek(descriptor, 0, os.SEEK_END)

    def extents(self) -> Iterator[Extent]:
        """Yield all of it as data."""
        if self.size:
            yield Extent(0, self.size, data=True)

    def changes(self) -> Iterator[Extent] | None:
        """Return None: the changes are not known."""
        return None

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError if they can not be read."""
        if offset + length > self.size:
            raise SourceError(f"{self._what} has {self.size} bytes: there are no {length} at {offset}")
        pieces = []
        try:
            # a signal may cut a read short, and Linux reads 2 GiB at most at a time
            while length and (piece := os.pread(self._descriptor, length, offset)):
                pieces.append(piece)
                offset, length = offset + len(piece), length - len(piece)
        except OSError as error:
            raise SourceError(f"{self._what}: {self._failed() or f'{error.strerror} at {offset}'}") from error
        if length:
            raise SourceError(f"{self._what} ends at {offset}, before its end at {self.size}")
        return b"".join(pieces)


@contextmanager
def opened(path: str, what: str) -> Iterator[int]:
    """Open a device for reading while the context lasts; raise SourceError if that fails."""
    with raising(SourceError, f"{what}: {path}"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with closed_at_end(descriptor):
        yield descriptor
