"""Packs: many chunks in one object, whose name is the SHA-256 of its table.

The content is that of chunk files one behind the other, which are zstd frames. Behind them is a table, JSON with id, id
of the base, offset and length of each; the SHA-256 of the table; and its length, 8 bytes, little endian. The table has
the ids of what is in the pack, which are hashes: to hash all of the content once more would take a processor's time.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from typing import NamedTuple

from backy_storages_chunked.codec import LARGEST_FRAME

FOLDER = "packs"
FULL = 16 * 2**20
"""Bytes after which a pack of full chunks ends."""
DELTAS = 64 * 2**20
"""Bytes after which a pack of deltas ends."""
_MOST_PARTS = 2**14
LINE = 192
"""Bytes that no line of the table exceeds, and as many for what is behind it."""
_LENGTH = struct.Struct("<Q")
_LARGEST = 2**26
"""Bytes that no table exceeds."""
TAIL = 32 + _LENGTH.size


class Part(NamedTuple):
    """A line of the table."""

    chunk_id: bytes
    base: bytes | None
    offset: int
    length: int


class Pack:
    """A pack while it is filled. Not safe to use from several threads."""

    def __init__(self, label: str, size: int = FULL) -> None:
        """Begin a pack that is full when it has `size` bytes or many parts."""
        self.label = label
        """What stands for the name while there is none."""
        self._size = size
        # of the kernel, which gives pages as they are filled and takes all of them back: memory of a size that changes
        # would be left in pieces that nothing else fits into
        self._content = mmap.mmap(-1, size + LARGEST_FRAME + _MOST_PARTS * LINE)
        self._end = 0
        self._parts: list[Part] = []

    @property
    def is_full(self) -> bool:
        """Whether nothing more shall be added."""
        return self._end >= self._size or len(self._parts) >= _MOST_PARTS

    def __len__(self) -> int:
        return self._end

    def add(self, chunk_id: bytes, frame: bytes | memoryview, base: bytes | None = None) -> int:
        """Add a chunk file; return its offset."""
        offset = self._end
        self._append(frame)
        self._parts.append(Part(chunk_id, base, offset, len(frame)))
        return offset

    def _append(self, content: bytes | memoryview) -> None:
        self._content[self._end : self._end + len(content)] = content
        self._end += len(content)

    def seal(self) -> tuple[str, memoryview]:
        """Add the table; return name and content."""
        rows = [(one.chunk_id.hex(), one.base and one.base.hex(), one.offset, one.length) for one in self._parts]
        table = json.dumps(rows, separators=(",", ":")).encode()
        digest = hashlib.sha256(table).digest()
        self._append(table + digest + _LENGTH.pack(len(table)))
        return digest.hex(), memoryview(self._content)[: self._end]


def table_size(tail: bytes) -> int:
    """Return the bytes of the table and what is behind it, by the end of a pack; raises ValueError."""
    if len(tail) < TAIL:
        raise ValueError("the pack is cut short")
    size = _LENGTH.unpack(tail[-_LENGTH.size :])[0] + TAIL
    if size > _LARGEST:
        raise ValueError("the table of the pack is damaged")
    return int(size)


def read_table(content: bytes) -> list[Part]:
    """Read the table at the end of a pack, of which the beginning may be missing.

    Raises:
        ValueError: it is damaged, or cut short.
    """
    end = len(content) - TAIL
    start = len(content) - table_size(content)
    if start < 0 or hashlib.sha256(content[start:end]).digest() != content[end : end + 32]:
        raise ValueError("the table of the pack is damaged")
    rows = json.loads(content[start:end])
    return [Part(bytes.fromhex(own), bytes.fromhex(base) if base else None, *at) for own, base, *at in rows]
