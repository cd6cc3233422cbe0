"""Reads a stored revision as an image. Every chunk is compared with its id before any of its bytes are returned."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from backy.api import CHUNK_SIZE, Extent, FramedImageReader, ImageReader, checked
from backy.errors import ChunkDamageError, StorageError
from backy.image.chunkmap import ZERO, ChunkMap
from backy.system.limits import Limit
from backy.system.parallel import Item, Result, in_parallel


class StoredImage:
    """An image made of a map and a storage's reader. Safe to use from several threads."""

    def __init__(self, chunks: ChunkMap, reader: ImageReader, threads: int | None = None) -> None:
        self.chunks = chunks
        self.size = chunks.size
        self.reader = reader
        self.threads = threads
        """How many threads the storage would like to read chunks; None if it does not care."""
        self.limits: Sequence[Limit] = ()
        """How fast chunks are read at most."""

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes as runs of whole chunks, ascending and without gaps."""
        return self.chunks.extents()

    def chunk_id(self, index: int) -> bytes:
        """Return the id of chunk `index`, `ZERO` for a chunk of zeroes."""
        return self.chunks[index]

    def chunk(self, index: int) -> bytes:
        """Return chunk `index`.

        Raises:
            ChunkDamageError: the chunk is missing, or its content does not have its id.
        """
        chunk_id = self.chunks[index]
        length = self.chunks.length(index)
        if chunk_id == ZERO:
            return bytes(length)
        for limit in self.limits:
            limit.take(length)
        try:
            return checked(chunk_id, self.reader.read(index, chunk_id), length)
        except ChunkDamageError as error:
            raise error.at(index * CHUNK_SIZE) from error.__cause__

    def frame(self, index: int) -> bytes | None:
        """Return the zstd frame in which chunk `index` is stored, compared with nothing; None if it is in none.

        Raises:
            ChunkDamageError: it is missing.
        """
        chunk_id, reader = self.chunks[index], self.reader
        return reader.frame(index, chunk_id) if chunk_id != ZERO and isinstance(reader, FramedImageReader) else None

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`.

        Raises:
            ChunkDamageError: a chunk is missing, or its content does not have its id.
            StorageError: the range is not inside the image.
        """
        end = offset + length
        if offset < 0 or length < 0 or end > self.size:
            raise StorageError(f"bytes {offset} to {end} are outside of the image of {self.size} bytes")
        # One whole chunk, as backups and verifiers ask for it, is returned without a copy.
        if offset % CHUNK_SIZE == 0 and 0 < length == self.chunks.length(offset // CHUNK_SIZE):
            return self.chunk(offset // CHUNK_SIZE)
        # A request inside of a chunk fetches all of it too: only a whole chunk can be compared with its id.
        pieces = []
        while offset < end:
            index, start = divmod(offset, CHUNK_SIZE)
            pieces.append(self.chunk(index)[start : start + end - offset])
            offset += len(pieces[-1])
        return b"".join(pieces)


class ChangedImage(StoredImage):
    """A stored image as the source of a copy, which tells what differs from the copy's parent."""

    def __init__(self, chunks: ChunkMap, reader: ImageReader, parent: ChunkMap) -> None:
        super().__init__(chunks, reader)
        self._parent = parent

    def changes(self) -> Iterator[Extent]:
        """Yield the chunks that differ from the parent, which is empty if there is none."""
        for index in self.chunks.differing(self._parent):
            yield Extent(index * CHUNK_SIZE, self.chunks.length(index), self.chunks[index] != ZERO)


def attempts(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> Generator[tuple[Item, Result | ChunkDamageError], None, None]:
    """Call `function` for each of `items` in parallel; yield the item with the result or the damage that it raised.

    `threads` is as in `in_parallel`.
    """

    def attempt(item: Item) -> tuple[Item, Result | ChunkDamageError]:
        try:
            return item, function(item)
        except ChunkDamageError as error:
            return item, error

    return in_parallel(attempt, items, threads)
