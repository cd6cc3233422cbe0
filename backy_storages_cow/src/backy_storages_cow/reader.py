"""Reads chunks of a raw image."""

import os

from backy.api import CHUNK_SIZE
from backy.durable import pread_all
from backy.errors import ChunkDamageError


class RawReader:
    """Reads chunks by their index. Safe to use from several threads."""

    def __init__(self, name: str, descriptor: int | OSError) -> None:
        self._name = name
        self._file = descriptor
        """Descriptor of the image, or the error if it can not be opened."""

    def read(self, index: int, chunk_id: bytes) -> bytes:
        """Return a chunk, which the caller compares with the id.

        Raises:
            ChunkDamageError: the image is missing, or the chunk can not be read.
        """
        try:
            return pread_all(self._descriptor(), CHUNK_SIZE, index * CHUNK_SIZE)
        except OSError as error:
            raise ChunkDamageError(chunk_id, f"image {self._name}: {error.strerror}") from error

    def probe(self, index: int, chunk_id: bytes) -> int:
        """Return the length of a chunk without reading it.

        Raises:
            ChunkDamageError: the image is missing, or ends before the chunk.
        """
        try:
            size = os.fstat(self._descriptor()).st_size
        except OSError as error:
            raise ChunkDamageError(chunk_id, f"image {self._name}: {error.strerror}") from error
        if size <= index * CHUNK_SIZE:
            raise ChunkDamageError(chunk_id, f"image {self._name} ends before it, after {size} bytes")
        return min(size - index * CHUNK_SIZE, CHUNK_SIZE)

    def _descriptor(self) -> int:
        # Raised here and not where the image is opened, so that each chunk is reported as damaged.
        if isinstance(self._file, OSError):
            raise self._file
        return self._file
