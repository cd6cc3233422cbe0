"""Lists the stored chunks that a scrub checks, each once, in an order in which a later scrub can continue."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from backy.durable import read_file
from backy.errors import BackyError, DamageError
from backy.repository.repository import Repository
from backy.repository.revision import Revision

log = logging.getLogger(__name__)


class Item(msgspec.Struct, frozen=True, order=True):
    """A stored chunk. A scrub visits items in their sort order, and `.scrub` has the one that was checked last."""

    storage: str
    """Identity of the storage."""
    revision_id: str
    """Empty if the revisions of the storage share chunks."""
    index: int
    chunk_id: bytes


class Inventory:
    """The stored chunks of some revisions.

    Storages come one after the other. Chunks that revisions share come in the order of their ids, all others in that
    of revision and index.
    """

    def __init__(self, repository: Repository, revisions: Iterable[Revision]) -> None:
        self._repository = repository
        self._own: dict[str, list[Revision]] = {}
        self.count = 0
        """Number of chunks."""
        self.problems: list[str] = []
        """Unreadable maps, incomplete raw images, storages that are not installed."""
        distinct: dict[str, set[bytes]] = {}
        for revision in sorted(revisions, key=lambda revision: revision.id):
            name = repository.store_of(revision)
            try:
                shares_chunks = repository.storage(name).shares_chunks
                chunks = repository.records.read_map(revision)
                if shares_chunks:
                    distinct.setdefault(name, set()).update(chunks.distinct())
                    continue
                # The map is not kept: all maps together could fill the memory.
                self._own.setdefault(name, []).append(revision)
                self.count += sum(1 for _ in chunks.data())
                # A raw image of the wrong size may have all its chunks, but `dd` would copy too little or too much.
                repository.raw_path(revision)
            except BackyError as error:
                # else it was forgotten since it was listed
                if repository.records.has(revision):
                    self.problems.append(str(error))
        self._shared = {name: sorted(chunk_ids) for name, chunk_ids in distinct.items()}
        self.count += sum(map(len, self._shared.values()))

    def items(self, last: Item | None) -> Iterator[Item]:
        """Yield every chunk once: those after `last` first, then the others; in order if `last` is None."""
        yield from (item for item in self._in_order() if last is None or item > last)
        if last is not None:
            yield from (item for item in self._in_order() if item <= last)

    def _in_order(self) -> Iterator[Item]:
        for name in sorted({*self._shared, *self._own}):
            for chunk_id in self._shared.get(name, ()):
                yield Item(name, "", 0, chunk_id)
            for revision in self._own.get(name, ()):
                # one that was sound a moment ago and is not there was forgotten meanwhile
                with suppress(DamageError):
                    chunks = self._repository.records.read_map(revision)
                    yield from (Item(name, revision.id, index, chunks[index]) for index in chunks.data())


def read_position(path: Path) -> Item | None:
    """Return the chunk that the last scrub checked last, or None if it is not known."""
    content = read_file(path)
    try:
        return msgspec.json.decode(content, type=Item)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if content:  # the file is empty until the first scrub ends
            log.warning("%s can not be read: %s; the scrub begins anew", path, error)
        return None


def write_position(path: Path, last: Item) -> None:
    """Write to `path` which chunk was checked last; log a failure."""
    # Not replaced by a new file: `path` is the lock file, and the lock belongs to the file that is open.
    # A crash may tear it. Losing it costs only time.
    try:
        path.write_bytes(msgspec.json.encode(last))
    except OSError as error:
        log.warning("%s can not be written: %s; the next scrub begins anew", path, error.strerror)
