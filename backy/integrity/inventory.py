"""What a scrub has to look at: each stored chunk once, in an order that a later scrub can go on in."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from backy.errors import BackyError, DamageError
from backy.repository.repository import Repository
from backy.repository.revision import Revision

log = logging.getLogger(__name__)


class Item(msgspec.Struct, frozen=True, order=True):
    """One stored chunk; items are visited in their order."""

    storage: str
    revision_id: str
    """Empty where a chunk's id alone says where it is stored."""
    index: int
    chunk_id: bytes


class Inventory:
    """The stored chunks of some complete revisions.

    Storages come one after the other. Where revisions share chunks the order is that of the ids, of which the memory
    holds each once; elsewhere it is that of revision and index, and of the maps there is one in memory at a time.
    """

    def __init__(self, repository: Repository, revisions: Iterable[Revision]) -> None:
        self._repository = repository
        self._revisions: list[Revision] = []
        self.count = 0
        """How many chunks there are."""
        self.problems: list[str] = []
        """Maps that can not be read, raw images that are not whole, storages that are not installed."""
        distinct: dict[str, set[bytes]] = {}
        for revision in sorted(revisions, key=lambda revision: (revision.storage, revision.id)):
            try:
                shares_chunks = repository.storage(revision.storage).shares_chunks
                chunks = repository.records.read_map(revision)
            except BackyError as error:
                self.problems.append(str(error))
                continue
            if shares_chunks:
                distinct.setdefault(revision.storage, set()).update(chunks.distinct())
            else:
                self._revisions.append(revision)
                self.count += sum(1 for _ in chunks.data())
                self._look_at_size(revision)
        self._shared = {name: sorted(chunk_ids) for name, chunk_ids in distinct.items()}
        self.count += sum(map(len, self._shared.values()))

    def _look_at_size(self, revision: Revision) -> None:
        """A raw image that is cut short or was added to may have all its chunks, but is not fit for `dd`."""
        try:
            self._repository.raw_path(revision)
        except DamageError as error:
            self.problems.append(str(error))

    def items(self, last: Item | None) -> Iterator[Item]:
        """Yield every chunk once, beginning behind `last`, and going on from the first one to it."""
        if last is None:
            yield from self._in_order()
        else:
            yield from (item for item in self._in_order() if item > last)
            yield from (item for item in self._in_order() if item <= last)

    def _in_order(self) -> Iterator[Item]:
        for name in sorted({*self._shared, *(revision.storage for revision in self._revisions)}):
            for chunk_id in self._shared.get(name, ()):
                yield Item(name, "", 0, chunk_id)
            yield from self._own(revision for revision in self._revisions if revision.storage == name)

    def _own(self, revisions: Iterable[Revision]) -> Iterator[Item]:
        for revision in revisions:
            try:
                chunks = self._repository.records.read_map(revision)
            except DamageError:
                continue  # forgotten meanwhile: a moment ago it was sound
            for index in chunks.data():
                yield Item(revision.storage, revision.id, index, chunks[index])


class Position(msgspec.Struct, frozen=True):
    """The content of `.scrub`: the chunk that was looked at last. To lose it costs nothing but time."""

    storage: str
    revision_id: str
    index: int
    chunk_id: str


def read_position(path: Path) -> Item | None:
    """Return the chunk that the last scrub looked at last; None if that is not known."""
    content = path.read_bytes()
    try:
        position = msgspec.json.decode(content, type=Position)
        return Item(position.storage, position.revision_id, position.index, bytes.fromhex(position.chunk_id))
    except (msgspec.DecodeError, ValueError) as error:
        if content:
            log.warning("%s can not be read: %s; the scrub begins anew", path, error)
        return None


def write_position(path: Path, last: Item) -> None:
    """Note which chunk was looked at last, in the file that is the lock: it is written in place."""
    try:
        position = Position(last.storage, last.revision_id, last.index, last.chunk_id.hex())
        path.write_bytes(msgspec.json.encode(position))
    except OSError as error:
        log.warning("%s can not be written: %s; the next scrub begins anew", path, error.strerror)
