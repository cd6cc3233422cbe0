"""Where the chunks of a revision are: the object `<id>.packs`, a zstd frame of JSON.

Its columns have a number for each row, 32 bits, little endian, in base64: a few bytes a chunk, here and in memory, for
images of any size. Rows are ordered by the position of the chunk in the image. Behind them are those of full chunks
that no position has, and that deltas are made of.
"""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from heapq import merge
from typing import NamedTuple

import msgspec
import zstandard

NOWHERE = 2**32 - 1
"""The position of a base that the image does not have, and the base of a full chunk."""
FORMAT = 1
_ID = 32
_NAME = re.compile("[0-9a-f]{64}")
_LARGEST = 2**31
"""Bytes of JSON that no index of an image exceeds."""
_COLUMNS = ("position", "pack", "offset", "length", "base", "spent", "ends")


class Place(NamedTuple):
    """A part of a pack: the frame of a chunk, or of a delta."""

    pack: str
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + self.length


class Row(NamedTuple):
    """What is known of the chunk in one row."""

    chunk_id: bytes
    place: Place
    base: int = NOWHERE
    """The row of the full chunk that a delta is made of."""
    spent: int = 0
    """Bytes of the earlier deltas of the same base, along the chunk's history."""
    pages: Sequence[int] = ()
    """Numbers of the pages that a delta has."""

    @property
    def is_delta(self) -> bool:
        """Whether it is no full chunk."""
        return self.base != NOWHERE


class _Document(msgspec.Struct):
    """The JSON."""

    format: int
    packs: list[str]
    ids: bytes
    position: bytes
    pack: bytes
    offset: bytes
    length: bytes
    base: bytes
    spent: bytes
    ends: bytes
    pages: bytes


class Index:
    """The rows of one revision. One that is read does not change; it is made by `append` and then `finish`."""

    def __init__(self) -> None:
        self.packs: list[str] = []
        """The names of the packs."""
        self.positions = array("I")
        self._numbers: dict[str, int] = {}
        self._ids = bytearray()
        self._pack, self._offset, self._length = array("I"), array("I"), array("I")
        self._base, self._spent = array("I"), array("I")
        self._ends, self._pages = array("I"), array("H")

    def __len__(self) -> int:
        return len(self.positions)

    def append(self, position: int, row: Row) -> int:
        """Add a row, behind those of lower positions; return its number. A base may be told later by `set_base`."""
        self.positions.append(position)
        self._ids += row.chunk_id
        place = row.place
        if place.pack not in self._numbers:
            self._numbers[place.pack] = len(self.packs)
            self.packs.append(place.pack)
        columns = (self._pack, self._offset, self._length, self._base, self._spent)
        values = (self._numbers[place.pack], place.offset, place.length, row.base, row.spent)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
        self._pages.extend(row.pages)
        self._ends.append(len(self._pages))
        return len(self) - 1

    def rename(self, old: str, new: str) -> None:
        """Give a pack its name, which is known when it is complete."""
        number = self._numbers.pop(old)
        self._numbers[new] = number
        self.packs[number] = new

    def set_base(self, row: int, base: int) -> None:
        """Tell which row has the base of a delta."""
        self._base[row] = base

    # reading ----------------------------------------------------------------------------------------------------------

    def chunk_id(self, row: int) -> bytes:
        """Return the id of a row's chunk."""
        return bytes(self._ids[row * _ID : (row + 1) * _ID])

    def base(self, row: int) -> int:
        """Return the row of a delta's base, `NOWHERE` for a full chunk."""
        return self._base[row]

    def place(self, row: int) -> Place:
        """Return where a row's frame is."""
        return Place(self.packs[self._pack[row]], self._offset[row], self._length[row])

    def row(self, row: int) -> Row:
        """Return all of a row."""
        pages = self._pages[self._ends[row - 1] if row else 0 : self._ends[row]]
        return Row(self.chunk_id(row), self.place(row), self._base[row], self._spent[row], pages)

    @cached_property
    def placed(self) -> int:
        """How many rows have a position; the others are behind them."""
        return bisect_left(self.positions, NOWHERE)

    def at(self, position: int) -> int | None:
        """Return the row of a position; None if it has no data."""
        row = bisect_left(self.positions, position, 0, self.placed)
        return row if row < self.placed and self.positions[row] == position else None

    @cached_property
    def _by_id(self) -> array[int]:
        return array("I", sorted(range(len(self)), key=self.chunk_id))

    def with_id(self, chunk_id: bytes) -> Iterator[int]:
        """Yield the rows with a chunk."""
        for at in range(bisect_left(self._by_id, chunk_id, key=self.chunk_id), len(self)):
            if self.chunk_id(self._by_id[at]) != chunk_id:
                return
            yield self._by_id[at]

    # JSON -------------------------------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """Return the content of the object."""
        columns = {name: _bytes(column) for name, column in self._columns().items()}
        document = _Document(FORMAT, self.packs, bytes(self._ids), pages=_bytes(self._pages), **columns)
        return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(msgspec.json.encode(document))

    @classmethod
    def decode(cls, content: bytes) -> Index:
        """Read the content of the object.

        Raises:
            ValueError: it is damaged, or of another format.
        """
        try:
            if not 0 < zstandard.frame_content_size(content) <= _LARGEST:
                raise ValueError("it claims an impossible length")
            found = msgspec.json.decode(zstandard.ZstdDecompressor().decompress(content), type=_Document)
        except (zstandard.ZstdError, msgspec.DecodeError) as error:
            raise ValueError(f"it is damaged: {error}") from error
        if found.format != FORMAT:
            raise ValueError(f"it has the format {found.format}, and this version reads {FORMAT}")
        made = cls()
        made.packs, made._ids, made._pages = found.packs, bytearray(found.ids), _numbers(found.pages, "H")
        made._numbers = {name: number for number, name in enumerate(found.packs)}
        columns = made._columns()
        for name in _COLUMNS:
            columns[name].extend(_numbers(getattr(found, name), "I"))
        if not made._is_sound():
            raise ValueError("it is damaged: its columns do not fit together")
        return made

    def _columns(self) -> dict[str, array[int]]:
        own = (self.positions, self._pack, self._offset, self._length, self._base, self._spent, self._ends)
        return dict(zip(_COLUMNS, own, strict=True))

    def _is_sound(self) -> bool:
        count = len(self)
        lengths = {len(column) for column in self._columns().values()} == {count} and len(self._ids) == count * _ID
        if not lengths or not all(map(_NAME.fullmatch, self.packs)) or len(self._numbers) != len(self.packs):
            return False
        ends, positions = self._ends, self.positions
        rising = all(ends[n] <= ends[n + 1] and positions[n] <= positions[n + 1] for n in range(count - 1))
        inside = max(self._pack, default=-1) < len(self.packs) and (ends[-1] if ends else 0) == len(self._pages)
        # a base is a full chunk, or reading would have no end
        bases = {base for base in self._base if base != NOWHERE}
        return rising and inside and all(base < count and self._base[base] == NOWHERE for base in bases)


def merged(parent: Index, new: Index, changed: Iterable[int], count: int) -> Index:
    """Return the index of an image of `count` chunks: that of its parent, with what is new in place of `changed`.

    Args:
        parent: The index of the parent.
        new: Rows of changed positions, in any order. The bases of their deltas are rows of the parent.
        changed: All positions that have changed, those of zeroes included.
        count: Chunks of the image.
    """
    gone = set(changed)
    kept = ((parent.positions[row], 1, row) for row in range(parent.placed) if parent.positions[row] not in gone)
    own = ((new.positions[row], 0, row) for row in sorted(range(len(new)), key=new.positions.__getitem__))
    made, where, waiting = Index(), dict[int, int](), list[tuple[int, int]]()
    for position, is_old, row in merge(kept, own):
        if position >= count:
            break
        found = (parent if is_old else new).row(row)
        number = made.append(position, found)
        if found.is_delta:
            waiting.append((number, found.base))
        elif is_old:
            where[row] = number
    for number, base in waiting:
        if base not in where:
            where[base] = made.append(NOWHERE, parent.row(base))
        made.set_base(number, where[base])
    return made


def united(indexes: Iterable[Index]) -> Index:
    """Return what any of some indexes has, without positions and pages: most of it is the same in all of them."""
    made, where = Index(), dict[Place, int]()
    for index in indexes:
        # full chunks first, as deltas name their rows
        for row in sorted(range(len(index)), key=lambda row: index.base(row) != NOWHERE):
            place, base = index.place(row), index.base(row)
            if place not in where:
                base = where[index.place(base)] if base != NOWHERE else NOWHERE
                where[place] = made.append(NOWHERE, Row(index.chunk_id(row), place, base))
    return made


def moved(index: Index, to: dict[Place, Place]) -> Index:
    """Return an index in which the parts at some places are at others."""
    made = Index()
    for row in range(len(index)):
        found = index.row(row)
        made.append(index.positions[row], found._replace(place=to.get(found.place, found.place)))
    return made


def _bytes(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _numbers(content: bytes, kind: str) -> array[int]:
    found = array(kind)
    try:
        found.frombytes(content)
    except ValueError:
        raise ValueError("it is damaged: a column is cut short") from None
    if sys.byteorder == "big":
        found.byteswap()
    return found
