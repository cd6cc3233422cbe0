"""Reading an image file or a block device, holes left out."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backy.api import Extent, Snapshot, SourceError


class FileSource:
    """A file or a block device as it lies there."""

    verifier = "full"

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def snapshot(self, revision: str, since: str | None) -> Iterator[Snapshot]:
        """Open the image for the length of a backup; it is not frozen."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"source {self._path}: {error.strerror}") from error
        try:
            yield OpenFile(self._path, descriptor)
        finally:
            os.close(descriptor)


class OpenFile:
    """An open image. Its size is that of the moment it was opened; reading is safe from several threads."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "neither a file nor a block device"
            raise SourceError(f"source {path} is {kind}; it must be an image file or a block device")
        self._sparse = stat.S_ISREG(mode)
        self.size = os.lseek(descriptor, 0, os.SEEK_END)

    def changes(self) -> None:
        """Tell nothing: a file does not know what changed in it."""

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes as the file system knows them; a block device is all data."""
        position = 0
        while position < self.size:
            data = self._next_data(position) if self._sparse else position
            if data > position:
                yield Extent(position, data - position, data=False)
            if data == self.size:
                return
            position = self._next_hole(data) if self._sparse else self.size
            yield Extent(data, position - data, data=True)

    def _next_data(self, position: int) -> int:
        try:
            return min(os.lseek(self._descriptor, position, os.SEEK_DATA), self.size)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise SourceError(f"source {self._path}: {error.strerror}") from error
        if os.fstat(self._descriptor).st_size < self.size:
            raise self._shrank()
        return self.size

    def _next_hole(self, position: int) -> int:
        try:
            return min(os.lseek(self._descriptor, position, os.SEEK_HOLE), self.size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise self._shrank() from error
            raise SourceError(f"source {self._path}: {error.strerror}") from error

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`."""
        try:
            data = os.pread(self._descriptor, length, offset)
            while len(data) < length:
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    raise self._shrank()
                data += more
        except OSError as error:
            raise SourceError(f"source {self._path}: {error.strerror} at {offset}") from error
        return data

    def _shrank(self) -> SourceError:
        return SourceError(f"source {self._path} shrank below {self.size} bytes while it was read")
