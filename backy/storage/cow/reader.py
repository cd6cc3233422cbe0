"""Reading chunks of a raw image."""

from __future__ import annotations

import os

from backy.api import CHUNK_SIZE
from backy.errors import ChunkDamageError


class RawReader:
    """Gives chunks by their place. Safe to use from several threads."""

    def __init__(self, name: str, descriptor: int | OSError) -> None:
        self._name = name
        self._file = descriptor
        """Descriptor of the image, or why there is none."""

    def read(self, index: int, chunk_id: bytes) -> bytes:
        """Return a chunk; the caller compares it with the id.

        Raises:
            ChunkDamageError: the image is missing, or the chunk can not be read.
        """
        try:
            return read_chunk(self._descriptor(), index)
        except OSError as error:
            raise ChunkDamageError(chunk_id, f"image {self._name}: {error.strerror}") from error

    def probe(self, index: int, chunk_id: bytes) -> int:
        """Look whether the image is there and reaches to the chunk, and return its length; raises ChunkDamageError."""
        try:
            size = os.fstat(self._descriptor()).st_size
        except OSError as error:
            raise ChunkDamageError(chunk_id, f"image {self._name}: {error.strerror}") from error
        if size <= index * CHUNK_SIZE:
            raise ChunkDamageError(chunk_id, f"image {self._name} ends before it, after {size} bytes")
        return min(size - index * CHUNK_SIZE, CHUNK_SIZE)

    def _descriptor(self) -> int:
        if isinstance(self._file, OSError):
            raise self._file
        return self._file


def read_chunk(descriptor: int, index: int) -> bytes:
    """Return chunk `index` of an image, or as much of it as there is; raises OSError.

    A call that gives only a part, as before a bad block, is followed by another one, which tells why.
    """
    offset, end = index * CHUNK_SIZE, (index + 1) * CHUNK_SIZE
    data = os.pread(descriptor, CHUNK_SIZE, offset)
    while data and offset + len(data) < end:
        more = os.pread(descriptor, end - offset - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
