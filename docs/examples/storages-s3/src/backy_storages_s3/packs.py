"""Packs: many chunks in one object, whose name is the SHA-256 of its content.

The content is that of chunk files one behind the other, which are zstd frames. Behind them is a table, JSON with id, id
of the base, offset and length of each; the SHA-256 of the table; and its length, 8 bytes, little endian.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import NamedTuple

FOLDER = "packs"
FULL = 16 * 2**20
"""Bytes after which a pack of full chunks ends."""
DELTAS = 64 * 2**20
"""Bytes after which a pack of deltas ends."""
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

    def __init__(self, label: str) -> None:
        self.label = label
        """What stands for the name while there is none."""
        self._content = bytearray()
        self._parts: list[Part] = []

    def __len__(self) -> int:
        return len(self._content)

    def add(self, chunk_id: bytes, frame: bytes | memoryview, base: bytes | None = None) -> int:
        """Add a chunk file; return its offset."""
        offset = len(self._content)
        self._content += frame
        self._parts.append(Part(chunk_id, base, offset, len(frame)))
        return offset

    def seal(self) -> tuple[str, bytearray]:
        """Add the table; return name and content."""
        rows = [(one.chunk_id.hex(), one.base and one.base.hex(), one.offset, one.length) for one in self._parts]
        table = json.dumps(rows, separators=(",", ":")).encode()
        self._content += table + hashlib.sha256(table).digest() + _LENGTH.pack(len(table))
        return hashlib.sha256(self._content).hexdigest(), self._content


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
