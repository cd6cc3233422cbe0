"""A stored image: the map with the ids of its chunks, and what reads them.

The chunk map `<id>.map` is the same for all storages. Every chunk is compared with its id before any of its bytes are
returned. The layout of the map, little endian, is described with test vectors in docs/reference/format.md:

    8 bytes   magic `backymap`
    u32       version, 1
    u32       chunk size in bytes
    u64       image size in bytes
    8 bytes   zero
    32 bytes  per chunk: its id, or 32 zero bytes for a chunk that is all zeroes
    32 bytes  BLAKE3-256 of everything before
"""

import mmap
import struct
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain

from blake3 import blake3

# not by way of backy.api: the longest chain of imports goes through here
from backy.contract.images import CHUNK_SIZE, LARGEST_IMAGE, Extent, chunk_count, identify
from backy.contract.storages import FramedImageReader, ImageReader, checked
from backy.errors import ChunkDamageError, DamageError, StorageError
from backy.system.limits import Limit
from backy.system.parallel import Item, Result, in_parallel

ID_SIZE = 32
ZERO = bytes(ID_SIZE)
"""Stands for a chunk that is all zeroes. No content has this id."""

_ZEROES = bytes(CHUNK_SIZE)

_MAGIC = b"backymap"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQ8x")
_ID = struct.Struct(f"{ID_SIZE}s")
# Two maps are compared by 16 ids at once, and holes are skipped by 1024 chunks at once: Python's loops are the cost.
_ROW = struct.Struct(f"{16 * ID_SIZE}s")
_STEP = 1024
_SKIP = bytes(_STEP * ID_SIZE)
_HUGE_PAGE = 2 * 2**20


def entry(content: bytes) -> bytes:
    """Return what a map has for a chunk of this content: its id, or `ZERO`."""
    zeroes = _ZEROES if len(content) == CHUNK_SIZE else bytes(len(content))
    return ZERO if content == zeroes else identify(content)


def buffer(length: int) -> bytearray | mmap.mmap:
    """Return `length` bytes of memory to read a map into."""
    if length < _HUGE_PAGE:
        return bytearray(length)
    # Huge pages: with small ones, touching each for the first time takes most of the time of reading a map.
    memory = mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # Some kernels have no huge pages.
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class ChunkMap:
    """The ids of an image's chunks, by index. Several threads may set items if their indexes differ."""

    def __init__(self, size: int) -> None:
        self.size = size
        # The bytes of the file, not a list of ids: the map of a 10 TiB image has 80 MiB and is held once this way.
        self._content: bytearray | mmap.mmap = bytearray(_file_size(size))
        _HEADER.pack_into(self._content, 0, _MAGIC, _VERSION, CHUNK_SIZE, size)

    def __len__(self) -> int:
        return chunk_count(self.size)

    def __getitem__(self, index: int) -> bytes:
        return bytes(self._content[_position(index) : _position(index + 1)])

    def __setitem__(self, index: int, chunk_id: bytes) -> None:
        self._content[_position(index) : _position(index + 1)] = chunk_id

    def length(self, index: int) -> int:
        """Return the length of chunk `index` in bytes: `CHUNK_SIZE`, or less for the last chunk."""
        return min(CHUNK_SIZE, self.size - index * CHUNK_SIZE)

    def resized(self, size: int) -> "ChunkMap":
        """Return a copy for an image of `size` bytes, cut or extended by zero chunks."""
        copy = ChunkMap(size)
        end = _position(min(len(self), len(copy)))
        copy._content[_HEADER.size : end] = memoryview(self._content)[_HEADER.size : end]
        return copy

    def data(self, start: int = 0, stop: int | None = None) -> Iterator[int]:
        """Yield the indexes from `start` to before `stop` of the chunks that hold data. Long holes cost little time."""
        end = len(self) if stop is None else min(stop, len(self))
        for first in range(start, end, _STEP):
            ids = self._content[_position(first) : _position(min(first + _STEP, end))]
            if ids != _SKIP:
                yield from (index for index, (chunk_id,) in enumerate(_ID.iter_unpack(ids), first) if chunk_id != ZERO)

    def differing(self, old: "ChunkMap") -> Iterator[int]:
        """Yield the indexes of the chunks that differ from those of `old`. Beyond its end, `old` is zeroes."""
        both = min(len(self), len(old))
        for index, (new_id, old_id) in enumerate(zip(self._chunk_ids(), old._chunk_ids(), strict=False)):  # noqa: SLF001  # of another ChunkMap
            # The length too: a zero chunk has the same id whatever its length.
            if new_id != old_id or (index == both - 1 and self.length(index) != old.length(index)):
                yield index
        yield from self.data(both)

    def hole(self, start: int) -> int:
        """Return the index of the first zero chunk from `start` on; the number of chunks if there is none."""
        ids = enumerate(self._chunk_ids(start), start)
        return next((index for index, (chunk_id,) in ids if chunk_id == ZERO), len(self))

    def data_size(self) -> int:
        """Return the total length in bytes of the chunks that hold data."""
        whole = sum(chunk_id != ZERO for (chunk_id,) in self._chunk_ids()) * CHUNK_SIZE
        last = len(self) - 1
        return whole - CHUNK_SIZE + self.length(last) if whole and self[last] != ZERO else whole

    def distinct(self, known: "ChunkMap | None" = None) -> set[bytes]:
        """Return the ids of the chunks that hold data. Ids that `known` has at the same index may be left out."""
        if known is None:
            found = set(chain.from_iterable(self._chunk_ids()))
            found.discard(ZERO)
            return found
        pairs = list(zip(self._rows(), known._rows(), strict=False))  # noqa: SLF001  # of another ChunkMap
        changed = [row for (row,), (other,) in pairs if row != other]
        rest = self._content[_HEADER.size + len(pairs) * _ROW.size : -ID_SIZE]
        return set(chain.from_iterable(_ID.iter_unpack(b"".join([*changed, rest])))) - {ZERO}

    def indexes(self, chunk_ids: Container[bytes]) -> list[int]:
        """Return the indexes of the chunks whose id is in `chunk_ids`, ascending."""
        return [index for index, (chunk_id,) in enumerate(self._chunk_ids()) if chunk_id in chunk_ids]

    def _chunk_ids(self, start: int = 0) -> Iterator[tuple[bytes]]:
        """Yield all ids from index `start` on."""
        # Five times as fast as reading items one by one.
        return _ID.iter_unpack(memoryview(self._content)[_position(start) : -ID_SIZE])

    def _rows(self) -> Iterator[tuple[bytes]]:
        """Yield the ids in rows of 16, without an incomplete last row."""
        whole = len(self) * ID_SIZE // _ROW.size * _ROW.size
        return _ROW.iter_unpack(memoryview(self._content)[_HEADER.size : _HEADER.size + whole])

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes as runs of whole chunks, ascending and without gaps."""
        start = 0
        while start < len(self):
            is_data = self[start] != ZERO
            stop = self.hole(start) if is_data else next(self.data(start), len(self))
            offset, end = start * CHUNK_SIZE, min(stop * CHUNK_SIZE, self.size)
            yield Extent(offset, end - offset, is_data)
            start = stop

    def encode(self) -> bytearray | mmap.mmap:
        """Return the content of the file, with its checksum. It is the map's own memory: do not change it."""
        self._content[-ID_SIZE:] = blake3(memoryview(self._content)[:-ID_SIZE]).digest()
        return self._content

    @property
    def digest(self) -> str:
        """The checksum at the end of the file, in hexadecimal, as of the last `encode` or `decode`."""
        return self._content[-ID_SIZE:].hex()

    @classmethod
    def decode(cls, content: bytearray | mmap.mmap) -> "ChunkMap":
        """Make a map from the content of a file. The map takes over the memory.

        Raises:
            DamageError: the content is cut short, changed, or of another version.
        """
        if len(content) < _HEADER.size + ID_SIZE:
            raise DamageError(f"the chunk map is cut short: {len(content)} bytes")
        magic, version, chunk_size, size = _HEADER.unpack_from(content)
        if magic != _MAGIC:
            raise DamageError("not a chunk map of backy 3: it does not begin with 'backymap'")
        if (version, chunk_size) != (_VERSION, CHUNK_SIZE):
            raise DamageError(f"the chunk map has version {version} and chunks of {chunk_size} bytes; this is backy 3")
        if len(content) != _file_size(size):
            raise DamageError(f"the chunk map is damaged: {len(content)} bytes instead of {_file_size(size)}")
        if blake3(memoryview(content)[:-ID_SIZE]).digest() != content[-ID_SIZE:]:
            raise DamageError("the chunk map is damaged: it fails its own checksum")
        chunks = cls(0)
        chunks.size, chunks._content = size, content
        return chunks


def _position(index: int) -> int:
    """Return the offset in the file at which the id of chunk `index` begins."""
    return _HEADER.size + index * ID_SIZE


def _file_size(size: int) -> int:
    """Return the length in bytes of the map of an image of `size` bytes."""
    return _position(chunk_count(size)) + ID_SIZE


LARGEST_MAP = _file_size(LARGEST_IMAGE)
"""Bytes that no map's file exceeds."""


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
