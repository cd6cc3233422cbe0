"""Images of backy 2: chunks that LZO compressed, and raw files; and the space that they take.

What of them is lost reads as zeroes, and is told.
"""

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import mmh3
import msgspec
from lzallright import LZOCompressor, LZOError

from backy.api import CHUNK_SIZE, LARGEST_IMAGE, Extent, Image, chunk_count
from backy.durable import closed_at_end, open_regular, read_file
from backy.errors import DamageError
from backy.extents import joined
from backy_upgrade.records import OldRevision, old_revisions

ID = 16
"""Bytes of the id of a chunk."""
ZEROES = bytes.fromhex("c72b4ba82d1f51b71c8a18195ad33fc8")
"""The id of a whole chunk of zeroes."""
SUFFIX = ".chunk.lzo"
_HEAD = 5
_LARGEST = CHUNK_SIZE + CHUNK_SIZE // 16 + 64 + _HEAD
"""Bytes that no compressed chunk exceeds."""


class _Map(msgspec.Struct):
    mapping: dict[str, str]
    size: int


class OldImage(ABC):
    """An image of backy 2, as an image to import."""

    name = None
    """No snapshot is named here: the revision's id does it."""
    base: str | None = None
    before = b""
    """The ids of the chunks of the image that `base` names."""
    ids = b""
    """The ids of its own chunks; none of a raw image."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.damaged: set[int] = set()
        """Indexes of the chunks of which something could not be read."""

    def snapshot(self, base: Image | None) -> Self:
        """Return this image."""
        return self

    def changes(self) -> Iterator[Extent] | None:
        """Yield the chunks whose ids differ from those of the image before; None if there is none to compare with."""
        if self.base is None:
            return None
        indexes = range(chunk_count(self.size))
        return joined(self._extent(i) for i in indexes if self.chunk_id(i) != self.before[i * ID : (i + 1) * ID])

    def chunk_id(self, index: int) -> bytes:
        """Return the id of a chunk."""
        return self.ids[index * ID : (index + 1) * ID]

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes, chunk by chunk."""
        return joined(map(self._extent, range(chunk_count(self.size))))

    def _extent(self, index: int) -> Extent:
        offset = index * CHUNK_SIZE
        return Extent(offset, min(CHUNK_SIZE, self.size - offset), data=self._has_data(index))

    def _has_data(self, index: int) -> bool:
        """Tell whether a chunk may have other bytes than zeroes."""
        return self.chunk_id(index) != ZEROES

    def pread(self, offset: int, length: int) -> bytes:
        """Return bytes; zeroes for what can not be read, whose chunks are `damaged` then."""
        end, pieces = offset + length, []
        while offset < end:
            index, begin = divmod(offset, CHUNK_SIZE)
            stop = min(CHUNK_SIZE, begin + end - offset)
            try:
                pieces.append(self._read(index, begin, stop))
            except (DamageError, OSError):
                self.damaged.add(index)
                pieces.append(bytes(stop - begin))
            offset += stop - begin
        return b"".join(pieces)

    @abstractmethod
    def _read(self, index: int, begin: int, stop: int) -> bytes:
        """Return a part of a chunk."""


class ChunkedImage(OldImage):
    """An image of which a map tells the chunks."""

    def __init__(self, store: Path, path: Path) -> None:
        try:
            content = msgspec.json.decode(read_file(path, 1 << 30), type=_Map)
            ids = (content.mapping.get(str(index)) for index in range(chunk_count(min(content.size, LARGEST_IMAGE))))
            # One piece of memory: an image may have millions of them. Zeroes stand for a chunk that the map does not
            # have: they are the id of nothing at all, which no chunk is.
            self.ids = b"".join(bytes.fromhex(text or "").ljust(ID, b"\0")[:ID] for text in ids)
        except (msgspec.DecodeError, ValueError) as error:
            raise DamageError(f"{path} is no chunk map: {error}") from error
        if not 0 <= content.size <= LARGEST_IMAGE:
            raise DamageError(f"{path} tells of {content.size} bytes")
        super().__init__(content.size)
        self._store = store

    def files(self) -> set[str]:
        """Return the names of all files that have its chunks."""
        return {f"{self.chunk_id(index).hex()}{SUFFIX}" for index in range(chunk_count(self.size))}

    def path(self, name: str) -> Path:
        """Return where the file of a chunk is: in one level of folders or in two, as until 2.3."""
        path = self._store / name[:2] / name
        return path if path.exists() else self._store / name[:2] / name[2:4] / name

    def _read(self, index: int, begin: int, stop: int) -> bytes:
        chunk_id = self.chunk_id(index)
        if chunk_id == ZEROES:
            return bytes(stop - begin)
        content = read_file(self.path(f"{chunk_id.hex()}{SUFFIX}"), _LARGEST)
        length = int.from_bytes(content[1:_HEAD], "big")
        # where an image has shrunk, its last chunk may be longer still
        if content[:1] not in {b"\xf0", b"\xf1"} or not stop <= length <= CHUNK_SIZE:
            raise DamageError("this is no such chunk")
        try:
            data = LZOCompressor.decompress(content[_HEAD:], length)
        except LZOError as error:
            raise DamageError(f"a chunk can not be decompressed: {error}") from error
        if len(data) != length or identify(data) != chunk_id:
            raise DamageError(f"chunk {index} has other content than its id says")
        return data[begin:stop]


def identify(data: bytes) -> bytes:
    """Return the id that backy 2 gives to a chunk."""
    return mmh3.hash_bytes(data, 0, True)  # for processors of 64 bits


class RawImage(OldImage):
    """An image that is a file."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(os.fstat(descriptor).st_size)
        self._descriptor = descriptor

    def _has_data(self, index: int) -> bool:
        try:
            return os.lseek(self._descriptor, index * CHUNK_SIZE, os.SEEK_DATA) < (index + 1) * CHUNK_SIZE
        except OSError as error:
            return error.errno != errno.ENXIO  # behind the last data

    def _read(self, index: int, begin: int, stop: int) -> bytes:
        data = os.pread(self._descriptor, stop - begin, index * CHUNK_SIZE + begin)
        if len(data) != stop - begin:
            raise DamageError(f"chunk {index} is cut short")
        return data


@contextmanager
def opened(directory: Path, revision: OldRevision) -> Iterator[ChunkedImage | RawImage]:
    """Open the image of a revision; raises DamageError or OSError if nothing of it can be read."""
    path = path_of(directory, revision)
    if revision.chunked:
        yield ChunkedImage(directory / "chunks", path)
        return
    with closed_at_end(open_regular(path)) as descriptor:
        yield RawImage(descriptor)


def path_of(directory: Path, revision: OldRevision) -> Path:
    """Return the file of a revision: its map, or its raw image."""
    # what backy 2 was about to convert still lies there
    aside = directory / f"{revision.id}.old"
    return aside if not revision.chunked and aside.exists() else directory / revision.id


def space_of(directory: Path, storage: str) -> tuple[int, int]:
    """Return the bytes that the images of backy 2 take on the disk, and those that new ones take at most, or nearly."""
    taken: dict[str, int] = {}
    for revision in old_revisions(directory).complete:
        taken[revision.id] = _taken(path_of(directory, revision))
        # what can not be read, the upgrade tells
        with suppress(DamageError, OSError), opened(directory, revision) as image:
            if isinstance(image, ChunkedImage):
                taken |= {one: _taken(image.path(one)) for one in image.files() - taken.keys()}
    # zstd makes less of a chunk than LZO does
    unpacked = sum(CHUNK_SIZE - size for name, size in taken.items() if name.endswith(SUFFIX) and storage == "cow")
    return sum(taken.values()), sum(taken.values()) + unpacked


def _taken(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0
