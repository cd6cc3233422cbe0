"""What to do without an index: the tables of packs tell where chunks are, and the map which ones a revision has."""

from __future__ import annotations

import logging
import struct
from collections.abc import Container

from backy.api import CHUNK_SIZE, chunk_count
from backy.durable import SMALL
from backy.errors import DamageError
from backy_storages_s3.index import NOWHERE, Index, Place, Row
from backy_storages_s3.packs import FOLDER, Part, read_table, table_size
from backy_storages_s3.store import Store

log = logging.getLogger(__name__)
_MAP = struct.Struct("<8sIIQQ")
_ID = 32


def salvaged(store: Store, but: Container[str] = ()) -> Index:
    """Return the chunks of all packs, `but` some, by their own tables, without positions; raises StorageError."""
    packs = [(pack, listed) for pack, listed in store.objects.list(FOLDER).items() if pack not in but]
    every = [(pack, part) for pack, listed in packs for part in _table(store, pack, listed.size)]
    made, full = Index(), dict[bytes, int]()
    # full chunks first, as deltas name their rows
    for pack, part in sorted(every, key=lambda one: one[1].base is not None):
        base = full.get(part.base, NOWHERE) if part.base else NOWHERE
        # a delta without its base is of no use
        if (part.base is None) == (base == NOWHERE):
            row = made.append(NOWHERE, Row(part.chunk_id, Place(pack, part.offset, part.length), base))
            if part.base is None:
                full[part.chunk_id] = row
    return made


def _table(store: Store, pack: str, size: int) -> list[Part]:
    name = f"{FOLDER}/{pack}"
    tail = bytes(store.objects.get_range(name, max(0, size - SMALL), size) or b"")
    try:
        begin = size - table_size(tail)
        more = store.objects.get_range(name, max(0, begin), size - SMALL) if begin < size - SMALL else None
        return read_table(bytes(more or b"") + tail)
    except ValueError as error:
        log.warning("the pack %s: %s", pack, error)
        return []


def index_of(store: Store, revision_id: str) -> Index:
    """Return the index of a revision, for one who writes; make it anew if it is lost.

    Raises:
        DamageError: it is lost, and cannot be made: a part of it is missing, or its map.
        StorageError: the store can not be reached.
    """
    try:
        return store.index(revision_id)
    except DamageError as error:
        log.warning("%s: it is made anew of the tables of packs", error)
        made = _rebuilt(store, revision_id)
    store.put_index(revision_id, made)
    return made


def _rebuilt(store: Store, revision_id: str) -> Index:
    content, found, made = store.get(f"{revision_id}.map"), salvaged(store), Index()
    ids = _ids(content, revision_id)
    where: dict[int, int] = {}
    waiting: list[tuple[int, int]] = []
    for position, chunk_id in enumerate(ids):
        # what is lost is found when it is read, and repaired
        row = next(found.with_id(chunk_id), None) if any(chunk_id) else None
        if row is not None:
            number = made.append(position, found.row(row))
            waiting += [(number, found.base(row))] if found.base(row) != NOWHERE else []
    for number, base in waiting:
        if base not in where:
            where[base] = made.append(NOWHERE, found.row(base))
        made.set_base(number, where[base])
    return made


def _ids(content: bytes, revision_id: str) -> list[bytes]:
    """Return the ids of a map by position; docs/reference/format.md has the format."""
    if len(content) >= _MAP.size:
        magic, _, chunk, size, _ = _MAP.unpack_from(content)
        end = _MAP.size + chunk_count(size) * _ID
        if magic == b"backymap" and chunk == CHUNK_SIZE and len(content) == end + _ID:
            return [content[start : start + _ID] for start in range(_MAP.size, end, _ID)]
    raise DamageError(f"the map of {revision_id} is damaged")
