"""Which revisions a new one may build upon, and which chunks it may rely on to be stored."""

import logging
import threading
from collections.abc import Container, Iterable

from backy.errors import DamageError
from backy.image.chunkmap import ChunkMap
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Revision

log = logging.getLogger(__name__)


def reliable(revision: Revision, boot: str) -> bool:
    """Tell whether all chunks of a revision are on the disk and sound, as far as is known in the boot with this id."""
    # a wrong one is sound: its wrong chunks are read again, whatever the source tells
    # data that was never synced is still in the page cache until the machine stops
    return not revision.state.distrusted and revision.state.unsynced_boot in {None, boot}


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
        # a chunk that is stored already is most likely one of the newest
        self._unread = list(revisions)
        self._chunk_ids: set[bytes] = set()
        self._latest: ChunkMap | None = None
        self._lock = threading.Lock()

    def __contains__(self, chunk_id: object) -> bool:
        with self._lock:
            # few backups ask, so that most of them never read a map
            while chunk_id not in self._chunk_ids and self._unread:
                self._read(self._unread.pop())
            return chunk_id in self._chunk_ids

    def _read(self, revision: Revision) -> None:
        try:
            chunks = self._records.read_map(revision)
        except DamageError as error:
            # else it was forgotten since it was listed
            if self._records.has(revision):
                log.warning("%s", error)
            return
        # most ids of a map are those of the map beside it: only the others are added, which is much faster
        self._chunk_ids |= chunks.distinct(self._latest)
        self._latest = chunks
