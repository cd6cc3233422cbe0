"""Removes what no revision needs: packs, and parts of packs of which little is left.

A pack is first condemned, in the object `condemned`, and deleted by a later purge, when nobody can rely on it any more:
after a grace that is longer than the lease of a writer who does not know of the purge.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta

import msgspec

from backy.api import Held, Purged
from backy.errors import DamageError, warned
from backy_storages_chunked.codec import NO_COMPRESSION, Codec
from backy_storages_s3.index import Index, Place, moved
from backy_storages_s3.objects import Listed
from backy_storages_s3.packs import FOLDER, LINE, Pack
from backy_storages_s3.ranges import joined, needed
from backy_storages_s3.salvage import index_of, salvaged
from backy_storages_s3.store import Store

log = logging.getLogger(__name__)
NAME = "condemned"
GRACE = timedelta(minutes=20)
"""Between condemning a pack and deleting it."""
LEAST = 0.4
"""The part of a pack that has to be live for it to stay as it is."""


def sparse(sizes: Mapping[str, int], used: Mapping[str, int]) -> list[str]:
    """Return the packs of which little is live, by the bytes of packs and of what is live of them.

    What is live includes its lines of the table: a pack of few small parts is mostly that.
    """
    return sorted(name for name, size in sizes.items() if 0 < used.get(name, 0) < LEAST * size)


def due(condemned: Mapping[str, datetime], now: datetime) -> list[str]:
    """Return the packs that were condemned so long ago that they can be deleted."""
    return sorted(name for name, when in condemned.items() if when + GRACE <= now)


def live_places(index: Index, live: Container[bytes]) -> Iterator[Place]:
    """Yield the places of live chunks, and of the bases that those are made of."""
    return needed(index, (row for row in range(len(index)) if index.chunk_id(row) in live))


def held(store: Store, live: Container[bytes]) -> Held:
    """Count the full chunks that are kept only because live deltas are made of them."""
    found: set[Place] = set()
    for _, index in store.indexes():
        if index is None:
            continue
        own = {index.place(row) for row in range(len(index)) if index.chunk_id(row) in live}
        found.update(set(live_places(index, live)) - own)
    return Held(len(found), sum(place.length for place in found))


class Purge:
    """One purge of a store."""

    def __init__(self, store: Store, live: Container[bytes]) -> None:
        self._store = store
        self._live = live
        self._codec = Codec(NO_COMPRESSION)
        self._places: dict[str, dict[int, Place]] = {}
        """Live places by pack and offset."""
        self._lost = False
        """Whether an index is lost, so that nobody can tell it what moves."""
        self._unseen = set(live) if isinstance(live, AbstractSet) else set[bytes]()
        """Live chunks that no index has so far."""

    def run(self) -> Purged:
        """Condemn, repack and delete; return what was deleted.

        Raises:
            StorageError: the store can not be reached, or another one writes.
        """
        self._store.hold()
        self._look()
        packs = self._store.objects.list(FOLDER)
        condemned, now = self._condemned(), self._store.clock()
        sizes = {name: one.size for name, one in packs.items()}
        used = {pack: sum(place.length + LINE for place in places.values()) for pack, places in self._places.items()}
        if self._unseen:
            log.warning("nothing is purged: no index and no pack tells where %d chunks are", len(self._unseen))
            return Purged()
        if not self._lost:
            with warned(log, "packs of which little is live stay", DamageError):
                self._repack(sparse(sizes, used))
        dead = sizes.keys() - self._places.keys()
        # one that was condemned, and is live, has been stored once more
        doomed = {name: condemned.get(name, now) for name in dead}
        # in this order: what is deleted has been condemned
        if doomed != condemned:
            self._put(doomed)
        return self._deleted(due(doomed, now), packs, doomed)

    def _look(self) -> None:
        """Find out what is live."""
        for revision_id in self._store.indexed():
            try:
                self._keep(index_of(self._store, revision_id))
            except DamageError as error:
                log.warning("%s", error)
                self._lost = True
        if self._lost or self._unseen:
            # a lost one need not have a record any more: then only its chunks tell
            self._lost = True
            # what the lost one has is found by the ids that are live
            self._keep(salvaged(self._store))

    def _keep(self, index: Index) -> None:
        self._unseen.difference_update(map(index.chunk_id, range(len(index))))
        for place in live_places(index, self._live):
            self._places.setdefault(place.pack, {})[place.offset] = place

    # condemned packs --------------------------------------------------------------------------------------------------

    def _condemned(self) -> dict[str, datetime]:
        found = self._store.objects.get(NAME)
        try:
            return msgspec.json.decode(found.content, type=dict[str, datetime]) if found else {}
        except msgspec.DecodeError:
            # all that is dead is condemned anew
            return {}

    def _put(self, condemned: Mapping[str, datetime]) -> None:
        self._store.hold()
        self._store.objects.put(NAME, msgspec.json.encode(condemned))

    def _deleted(self, names: list[str], packs: Mapping[str, Listed], condemned: Mapping[str, datetime]) -> Purged:
        if not names:
            return Purged()
        self._store.hold()
        self._store.objects.delete([f"{FOLDER}/{name}" for name in names])
        self._put({name: when for name, when in condemned.items() if name not in names})
        return Purged(len(names), sum(packs[name].size for name in names))

    # packing anew -----------------------------------------------------------------------------------------------------

    def _repack(self, names: list[str]) -> None:
        """Store what is live of some packs in new ones, and let all indexes name these."""
        to: dict[Place, Place] = {}
        waiting: dict[Place, Place] = {}
        pack = Pack("repacked")
        for place, chunk_id, base, frame in self._parts(names):
            waiting[place] = Place("", pack.add(chunk_id, frame, base), place.length)
            if pack.is_full:
                to |= self._sealed(pack, waiting)
                pack, waiting = Pack("repacked"), {}
        if waiting:
            to |= self._sealed(pack, waiting)
        if to:
            self._rewrite(to, set(names))
            # not those that came out as they were
            for name in set(names) - {place.pack for place in to.values()}:
                del self._places[name]

    def _sealed(self, pack: Pack, waiting: Mapping[Place, Place]) -> dict[Place, Place]:
        name, content = pack.seal()
        self._store.hold()
        self._store.objects.put(f"{FOLDER}/{name}", content)
        self._places.setdefault(name, {}).update({at.offset: at._replace(pack=name) for at in waiting.values()})
        return {place: at._replace(pack=name) for place, at in waiting.items()}

    def _parts(self, names: list[str]) -> Iterator[tuple[Place, bytes, bytes | None, bytes]]:
        """Yield what is live of some packs."""
        whose = self._whose(set(names))
        for wanted in joined(place for name in names for place in self._places[name].values()):
            content = self._store.objects.get_range(f"{FOLDER}/{wanted.pack}", wanted.offset, wanted.end)
            if content is None:
                raise DamageError(f"the pack {wanted.pack} can not be read any more: run the purge again")
            for offset, place in sorted(self._places[wanted.pack].items()):
                if wanted.offset <= offset < wanted.end:
                    start = offset - wanted.offset
                    frame = bytes(content[start : start + place.length])
                    # what is damaged stays where it is: in a new pack, it would look as if it were sound
                    try:
                        self._codec.decompress(frame)
                    except ValueError as error:
                        raise DamageError(f"the pack {wanted.pack} at {offset}: {error}") from error
                    yield place, *whose[place], frame

    def _whose(self, names: set[str]) -> dict[Place, tuple[bytes, bytes | None]]:
        """Return id and id of the base of what is at the live places of some packs."""
        found: dict[Place, tuple[bytes, bytes | None]] = {}
        for _, index in self._store.indexes():
            for row in range(len(index) if index else 0):
                if index and (one := index.row(row)).place.pack in names:
                    found[one.place] = one.chunk_id, index.chunk_id(one.base) if one.is_delta else None
        return found

    def _rewrite(self, to: dict[Place, Place], names: set[str]) -> None:
        for revision_id, index in self._store.indexes():
            if index and names & set(index.packs):
                self._store.put_index(revision_id, moved(index, to))
