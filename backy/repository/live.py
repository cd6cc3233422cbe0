"""Which revisions a new one may build upon, and which chunks it may rely on to be stored."""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Iterable

from backy.errors import DamageError
from backy.image.chunkmap import ChunkMap
from backy.repository.clocks import boot_id
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Revision

log = logging.getLogger(__name__)


def reliable(revision: Revision) -> bool:
    """Tell whether all chunks of a revision are on the disk, sound and right, as far as is known."""
    # data that was never synced is still in the page cache until the machine stops
    return not revision.doubtful and revision.state.unsynced_boot in {None, boot_id()}


def first_sound(repository: Repository, candidates: Iterable[Revision]) -> tuple[Revision, ChunkMap] | None:
    """Return the first of `candidates` whose map, and raw image if it has one, are sound; and that map."""
    for revision in candidates:
        try:
            repository.raw_path(revision)
            return revision, repository.records.read_map(revision)
        except DamageError as error:
            log.warning("%s; it is not built upon", error)
    return None


class LiveChunks(Container[bytes]):
    """The ids of the chunks that some revisions refer to. Safe to use from several threads."""

    def __init__(self, records: Records, revisions: Iterable[Revision]) -> None:
        self._records = records
        self._revisions = revisions
        self._chunk_ids: set[bytes] | None = None
        self._lock = threading.Lock()

    def __contains__(self, chunk_id: object) -> bool:
        with self._lock:
            # few backups ask, so that most of them never read the maps
            if self._chunk_ids is None:
                self._chunk_ids = self._read()
        return chunk_id in self._chunk_ids

    def _read(self) -> set[bytes]:
        chunk_ids: set[bytes] = set()
        earlier: ChunkMap | None = None
        for revision in self._revisions:
            try:
                chunks = self._records.read_map(revision)
            except DamageError as error:
                log.warning("%s", error)
                continue
            # most ids of a map are those of the map before it: only the others are added, which is much faster
            chunk_ids |= chunks.distinct(earlier)
            earlier = chunks
        return chunk_ids
