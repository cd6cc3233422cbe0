"""Reads chunks out of packs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

from backy.api import ChunkDamageError, checked
from backy.errors import DamageError
from backy_storages_chunked.codec import LARGEST_FRAME, SMALLEST_FRAME, Codec, Delta, apply_delta, decode_delta
from backy_storages_s3.index import Index, Place, Row, united
from backy_storages_s3.packs import FOLDER
from backy_storages_s3.ranges import Plan
from backy_storages_s3.salvage import salvaged
from backy_storages_s3.store import Store

_RANGES = 32 * 2**20
"""Bytes of ranges that are kept: three of the longest, and some that are short."""
_BASES = 16 * 2**20
"""Bytes of full chunks that are kept because deltas are made of them."""
_NEAR = 16
"""Chunks between two that are read which make it likely that those between and behind them are wanted, too."""
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bytes, memoryview)


class Recent(Generic[Key, Value]):
    """What was made last, up to a number of bytes. Threads that want the same wait for the first one to make it."""

    def __init__(self, size: int) -> None:
        self._room = size
        self._lock = threading.Lock()
        self._made: OrderedDict[Key, Future[Value]] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return what is kept, or what `make` returns."""
        with self._lock:
            future, own = self._made.get(key), Future[Value]()
            if future is None:
                self._made[key] = own
            self._made.move_to_end(key)
        if future is not None:
            return future.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                self._made.pop(key, None)
            own.set_exception(error)
            raise
        own.set_result(value)
        self._trim()
        return value

    def drop(self, key: Key) -> None:
        """Have it made anew the next time."""
        with self._lock:
            self._made.pop(key, None)

    def _trim(self) -> None:
        with self._lock:
            done = {key: len(one.result()) for key, one in self._made.items() if one.done() and not one.exception()}
            total = sum(done.values())
            for key, size in done.items():
                if total <= self._room:
                    break
                total -= size
                del self._made[key]


class Reader:
    """Reads chunks of one revision, or of all. Safe to use from several threads."""

    def __init__(self, store: Store, codec: Codec, revision_id: str) -> None:
        self._store = store
        self._codec = codec
        self._revision_id = revision_id
        self._lock = threading.RLock()
        self._index: Index | None = None
        self._plan: Plan | None = None
        self._last = -_NEAR
        self._ranges = Recent[Place, memoryview](_RANGES)
        self._bases = Recent[Place, bytes](_BASES)
        self._is_sought = not revision_id
        self._others: Index | None = None
        self._is_one_lost = False
        self._last_resort: Index | None = None
        self._packs: dict[str, int] | None = None

    def read(self, index: int, chunk_id: bytes) -> bytes:
        """Return a chunk, from wherever it is whole.

        Raises:
            ChunkDamageError: it is missing or damaged everywhere.
        """
        problem = ChunkDamageError(chunk_id, "the index of no revision has it")
        for found, row in self._rows(index, chunk_id):
            try:
                return self.content(found, row)
            except ChunkDamageError as error:
                problem = error
        raise problem

    def content(self, index: Index, row: int) -> bytes:
        """Return the chunk in a row; raises ChunkDamageError."""
        found = index.row(row)
        if not found.is_delta:
            return self._opened(found, self._frame(index, row, found.place))
        # the delta first: it tells sooner that the base is not needed
        delta = self.delta(index, row)
        return apply_delta(delta, self._base(index, row, index.row(found.base), found.chunk_id))

    def delta(self, index: Index, row: int) -> Delta:
        """Return the delta in a row; raises ChunkDamageError."""
        found = index.row(row)
        content = self._opened(found, self._frame(index, row, found.place))
        try:
            return decode_delta(content)
        except ValueError as error:
            raise ChunkDamageError(found.chunk_id, f"{place_name(found.place)}: {error}", content) from error

    def _base(self, index: Index, row: int, base: Row, chunk_id: bytes) -> bytes:
        def made() -> bytes:
            return checked(base.chunk_id, self._opened(base, self._frame(index, row, base.place)))

        try:
            return self._bases.get(base.place, made)
        except ChunkDamageError as error:
            # the caller asked for another chunk, and a repair needs the id of this one as well
            cause = f"it is made of a damaged one: {error}"
            raise ChunkDamageError(chunk_id, cause, error.evidence, base.chunk_id) from error

    def _opened(self, row: Row, frame: bytes) -> bytes:
        try:
            return self._codec.decompress(frame)
        except ValueError as error:
            raise ChunkDamageError(row.chunk_id, f"{place_name(row.place)}: {error}", frame) from error

    def _frame(self, index: Index, row: int, place: Place) -> bytes:
        """Return the bytes at a place that is needed for a row, with others if those are likely to be wanted soon."""
        whole = place
        with self._lock:
            if index is self._index and self._plan and row < index.placed:
                if abs(row - self._last) <= _NEAR:
                    whole = self._plan.range_of(row, place)
                self._last = row
        content = self._ranges.get(whole, lambda: self._fetch(whole))
        start = place.offset - whole.offset
        if len(content) < start + place.length:
            self._ranges.drop(whole)
            raise ChunkDamageError(index.chunk_id(row), f"{place_name(place)}: the pack is missing or cut short")
        return bytes(content[start : start + place.length])

    def _fetch(self, place: Place) -> memoryview:
        found = self._store.objects.get_range(f"{FOLDER}/{place.pack}", place.offset, place.end)
        return memoryview(b"") if found is None else found

    # where it is ------------------------------------------------------------------------------------------------------

    def _rows(self, index: int, chunk_id: bytes) -> Iterator[tuple[Index, int]]:
        """Yield where a chunk is: as this revision has it, then as the store has it now, for all revisions."""
        tried: set[tuple[Place, Place | None]] = set()
        for found in self._indexes():
            at = found.at(index)
            own = [at] if at is not None and found.chunk_id(at) == chunk_id else []
            for row in [*own, *found.with_id(chunk_id)]:
                base = found.row(row).base if found.row(row).is_delta else None
                places = found.place(row), None if base is None else found.place(base)
                if places not in tried:
                    tried.add(places)
                    yield found, row

    def _indexes(self) -> Iterator[Index]:
        if own := self._own():
            yield own
        # what was remembered of it may be out of date: a purge has moved chunks, or a repair has stored one anew
        with self._lock:
            if self._others is None:
                self._others = united(self._all())
        yield self._others
        with self._lock:
            if self._last_resort is None:
                # what a lost one had may be anywhere, and what was being stored is in packs that no index names yet
                self._last_resort = salvaged(self._store, () if self._is_one_lost else set(self._others.packs))
        yield self._last_resort

    def _own(self) -> Index | None:
        with self._lock:
            if not self._is_sought:
                self._store.prove()
                with suppress(DamageError):
                    self._index = self._store.index(self._revision_id)
                    self._plan = Plan(self._index)
                self._is_sought = True
            return self._index

    def _all(self) -> Iterator[Index]:
        for index in self._store.indexes_now():
            # what a lost one had may be in others, or in the tables of packs
            self._is_one_lost |= index is None
            if index is not None:
                yield index

    # without reading --------------------------------------------------------------------------------------------------

    def probe(self, index: int, chunk_id: bytes) -> int:
        """Return the bytes that have to be read for a chunk, after a look at the list of packs.

        Raises:
            ChunkDamageError: a pack that it needs is missing or too short.
        """
        with self._lock:
            if self._packs is None:
                self._packs = {name: one.size for name, one in self._store.objects.list(FOLDER).items()}
        for found, row in self._rows(index, chunk_id):
            if (size := stored(found, row, self._packs)) is not None:
                return size
        raise ChunkDamageError(chunk_id, "no pack has it")


def stored(index: Index, row: int, packs: dict[str, int]) -> int | None:
    """Return the bytes that a row's chunk takes in packs of these sizes; None if one does not have it."""
    base = index.row(row).base
    places = [index.place(one) for one in (row, base) if one < len(index)]
    inside = all(place.end <= packs.get(place.pack, 0) for place in places)
    possible = all(SMALLEST_FRAME <= place.length <= LARGEST_FRAME for place in places)
    return sum(place.length for place in places) if inside and possible else None


def place_name(place: Place) -> str:
    """Return a place for messages."""
    return f"pack {place.pack[:12]}, bytes {place.offset} to {place.end}"
