"""Reads a stream from its first byte to its last, and refuses one that is not sound."""

import os
from typing import BinaryIO, Final, NoReturn

from backy.api import SourceError

_BLOCK: Final = 2**20
"""Bytes that are read from a pipe at a time."""


class Reader:
    """A stream in a file, or from a pipe: then everything read is also written to the file `kept`.

    Raises:
        SourceError: the stream ends too early; the text has the position in bytes.
    """

    def __init__(self, file: BinaryIO, name: str, kept: BinaryIO | None = None) -> None:
        self._file = file
        self._name = name
        self._kept = kept
        if kept is None:
            start = file.tell()
            self._length = file.seek(0, os.SEEK_END)
            file.seek(start)

    @property
    def position(self) -> int:
        """The number of bytes that were read or left out."""
        return (self._kept or self._file).tell()

    def refuse(self, what: str) -> NoReturn:
        """Raise SourceError."""
        raise SourceError(f"{self._name} {what} (at byte {self.position}); nothing was imported")

    def some(self, length: int) -> bytes:
        """Read a few bytes; fewer than `length` at the end only."""
        data = self._file.read(length)
        if self._kept:
            self._kept.write(data)
        return data

    def exactly(self, length: int) -> bytes:
        """Read a few bytes."""
        data = self.some(length)
        if len(data) < length:
            self.refuse("is cut short")
        return data

    def number(self, length: int) -> int:
        """Read a number of so many bytes."""
        return int.from_bytes(self.exactly(length), "little")

    def leave_out(self, length: int) -> None:
        """Pass by any number of bytes."""
        if self._kept:
            # A pipe can not be sought in. Reading also keeps the data, which the import needs later.
            for start in range(0, length, _BLOCK):
                self.exactly(min(_BLOCK, length - start))
        elif self.position + length > self._length:
            self.refuse("is cut short")
        else:
            self._file.seek(length, os.SEEK_CUR)
