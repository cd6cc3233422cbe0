"""Stores a revision: chunks as parts of packs, and at the end its index."""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Iterable
from functools import partial
from typing import NamedTuple

from backy.api import CHUNK_SIZE, PAGE_SIZE, ChunkDamageError, Extent, Stored, checked, chunk_count
from backy.errors import MOST_FINDINGS
from backy.pages import differing_pages, total
from backy_storages_chunked.codec import Codec, encode_delta, make_delta
from backy_storages_s3.index import Index, Place, Row, merged
from backy_storages_s3.packs import DELTAS, FULL
from backy_storages_s3.reader import Reader
from backy_storages_s3.salvage import index_of
from backy_storages_s3.store import Store
from backy_storages_s3.upload import Uploads

log = logging.getLogger(__name__)


class Begun(NamedTuple):
    """A revision that is stored."""

    id: str
    parent: str | None
    size: int
    """Bytes of the image."""


class Base(NamedTuple):
    """What a delta can be made of: a full chunk, and what its history has cost."""

    row: int
    """The row in the parent's index."""
    chunk_id: bytes
    size: int
    """Bytes of its frame."""
    spent: int
    """Bytes of the deltas so far."""


class Writer:
    """Stores a new revision. Safe to use from several threads."""

    def __init__(self, store: Store, codec: Codec, revision: Begun, reliable: Container[bytes]) -> None:
        self._store = store
        self._codec = codec
        self._revision = revision
        self._reliable = reliable
        self._parent = index_of(store, revision.parent) if revision.parent else Index()
        self._reader = Reader(store, codec, revision.parent or "")
        self._lock = threading.Lock()
        self._new = Index()
        self._zeroes: list[int] = []
        self._claimed: set[bytes] = set()
        self._again: list[tuple[int, bytes]] = []
        self._damaged: list[ChunkDamageError] = []
        self._full = Uploads(store, "full", FULL)
        self._deltas = Uploads(store, "deltas", DELTAS)

    # the contract -----------------------------------------------------------------------------------------------------

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        """Store a chunk, unless the parent has it; return how many of its bytes differ from the previous one.

        The previous one is read.
        """
        if self._is_there(index, chunk_id):
            # what differs is not worth a request
            return len(data)
        return self._write(index, chunk_id, data, previous)

    def _write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        found = self._compared(index, previous, data) if previous else None
        base, pages, changed = found or (None, [], len(data))
        self._store_chunk(index, chunk_id, data, base, pages)
        return changed

    def write_changes(self, index: int, chunk_id: bytes, data: bytes, previous: bytes, told: Iterable[Extent]) -> int:
        """Store a chunk as `write` does, and believe which pages differ; nothing is read."""
        if self._is_there(index, chunk_id):
            return len(data)
        row = self._previous(index, previous)
        pages = told_pages(told, index * CHUNK_SIZE, len(data))
        # a source that tells whole chunks does not know single pages
        if row is None or not pages or len(pages) * PAGE_SIZE >= len(data):
            return self._write(index, chunk_id, data, previous)
        before = self._parent.row(row)
        self._store_chunk(index, chunk_id, data, self._base_of(row), sorted({*pages, *before.pages}))
        return total(pages, len(data))

    def zero(self, index: int) -> None:
        """Note a chunk of zeroes, which has no place."""
        with self._lock:
            self._zeroes.append(index)

    def commit(self) -> Stored:
        """Store the last packs and the index. Nobody knows of them before the record is published."""
        for uploads in (self._full, self._deltas):
            uploads.finish()
            for label, name in uploads.names.items():
                self._new.rename(label, name)
        by_id = {self._new.chunk_id(row): row for row in range(len(self._new))} if self._again else {}
        for index, chunk_id in self._again:
            self._new.append(index, self._new.row(by_id[chunk_id]))
        changed = [*self._zeroes, *self._new.positions]
        made = merged(self._parent, self._new, changed, chunk_count(self._revision.size))
        size = self._store.put_index(self._revision.id, made)
        self._store.committed.add(self._revision.id)
        return Stored(self._full.bytes + self._deltas.bytes + size, damaged=tuple(self._damaged))

    def close(self) -> None:
        """Wait for what is on its way. What is there without an index is removed by a purge."""
        self._full.close()
        self._deltas.close()

    # what is there ----------------------------------------------------------------------------------------------------

    def _is_there(self, index: int, chunk_id: bytes) -> bool:
        """Note the place of a chunk that the parent has, or that another thread stores."""
        if chunk_id in self._reliable:
            with self._lock:
                for row in self._parent.with_id(chunk_id):
                    self._new.append(index, self._parent.row(row))
                    return True
        with self._lock:
            if chunk_id in self._claimed:
                self._again.append((index, chunk_id))
                return True
            self._claimed.add(chunk_id)
        return False

    def _previous(self, index: int, chunk_id: bytes) -> int | None:
        """Return the parent's row of the previous chunk, if it can be built upon."""
        row = self._parent.at(index)
        sound = row is not None and self._parent.chunk_id(row) == chunk_id and chunk_id in self._reliable
        return row if sound else None

    def _base_of(self, row: int) -> Base:
        before = self._parent.row(row)
        if not before.is_delta:
            return Base(row, before.chunk_id, before.place.length, 0)
        base = self._parent.row(before.base)
        return Base(before.base, base.chunk_id, base.place.length, before.spent + before.place.length)

    def _compared(self, index: int, previous: bytes, data: bytes) -> tuple[Base, list[int], int] | None:
        """Read the previous chunk; return its base, the pages that differ from that, and bytes that differ from it."""
        row = self._previous(index, previous)
        if row is None:
            return None
        base = self._base_of(row)
        try:
            content = checked(previous, self._reader.content(self._parent, row))
            full = content if base.row == row else self._reader.content(self._parent, base.row)
        except ChunkDamageError as error:
            # a delta of what is damaged would be damaged, too
            log.warning("%s; what changed in it is stored in full", error)
            with self._lock:
                self._damaged.append(error if len(self._damaged) < MOST_FINDINGS else error.without_evidence())
            return None
        return base, differing_pages(data, full), total(differing_pages(data, content), len(data))

    # storing ----------------------------------------------------------------------------------------------------------

    def _store_chunk(self, index: int, chunk_id: bytes, data: bytes, base: Base | None, pages: list[int]) -> None:
        if base is not None and len(pages) * PAGE_SIZE < len(data):
            frame = self._codec.compress(encode_delta(make_delta(data, pages, base.spent)))
            # the deltas of a base, with this one, shall cost no more than the base itself
            if base.spent + len(frame) <= base.size:
                put = partial(self._note, index, Row(chunk_id, Place("", 0, len(frame)), base.row, base.spent, pages))
                self._deltas.add(chunk_id, frame, base.chunk_id, put)
                return
        frame = self._codec.compress(data)
        self._full.add(chunk_id, frame, None, partial(self._note, index, Row(chunk_id, Place("", 0, len(frame)))))

    def _note(self, index: int, row: Row, label: str, offset: int) -> None:
        with self._lock:
            self._new.append(index, row._replace(place=Place(label, offset, row.place.length)))


def told_pages(told: Iterable[Extent], start: int, length: int) -> list[int]:
    """Return the numbers of the pages of the chunk at `start` that the changes are in."""
    inside = ((max(one.offset - start, 0), min(one.end - start, length)) for one in told)
    return sorted({page for begin, end in inside for page in range(begin // PAGE_SIZE, -(-end // PAGE_SIZE))})
