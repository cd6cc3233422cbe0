"""A stored revision as an image: every chunk is compared with its id before a byte of it is handed out."""

from __future__ import annotations

from collections.abc import Iterator

from backy.api import CHUNK_SIZE, Extent, ImageReader
from backy.errors import StorageError
from backy.image.chunkmap import ZERO, ChunkMap, checked


class StoredImage:
    """What a map and a storage's reader make together. Safe to use from several threads."""

    def __init__(self, chunks: ChunkMap, reader: ImageReader) -> None:
        self.chunks = chunks
        self.reader = reader

    @property
    def size(self) -> int:
        """Bytes from the first to the last."""
        return self.chunks.size

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes, as runs of whole chunks."""
        return self.chunks.extents()

    def chunk(self, index: int) -> bytes:
        """Return chunk `index`.

        Raises:
            ChunkDamageError: it is missing, or its content is not what its id says.
        """
        chunk_id = self.chunks[index]
        length = self.chunks.length(index)
        if chunk_id == ZERO:
            return bytes(length)
        return checked(chunk_id, self.reader.read(index, chunk_id), length)

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`.

        Raises:
            ChunkDamageError: as for `chunk`.
            StorageError: the range is not inside the image.
        """
        end = offset + length
        if offset < 0 or length < 0 or end > self.size:
            raise StorageError(f"bytes {offset} to {end} are outside of the image of {self.size} bytes")
        if offset % CHUNK_SIZE == 0 and 0 < length == self.chunks.length(offset // CHUNK_SIZE):
            return self.chunk(offset // CHUNK_SIZE)
        pieces = []
        while offset < end:
            index, start = divmod(offset, CHUNK_SIZE)
            pieces.append(self.chunk(index)[start : start + end - offset])
            offset += len(pieces[-1])
        return b"".join(pieces)
