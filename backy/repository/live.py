"""What a new revision finds: leftovers to clean up, its parent, and revisions whose chunks it may rely on to be stored.

Leftovers are those of a killed command, or of a machine that stopped.
"""

import logging
import threading
from collections.abc import Container, Iterable
from typing import NamedTuple

from backy.durable import TEMPORARY_SUFFIX, names_in
from backy.errors import DamageError
from backy.image.chunkmap import ChunkMap
from backy.repository.records import Records, orphans
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.running import begun, end
from backy.system.clocks import boot_id

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
    """The ids of the sound chunks that some revisions refer to. Safe to use from several threads."""

    def __init__(self, records: Records, revisions: Iterable[Revision], damaged: Container[bytes] = ()) -> None:
        self._records = records
        self._damaged = damaged
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
            return chunk_id in self._chunk_ids and chunk_id not in self._damaged

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


class Base(NamedTuple):
    """What a new revision builds upon."""

    history: list[Revision]
    candidates: list[Revision]
    """Revisions whose chunks need not be stored again."""
    parent: Revision | None = None
    chunks: ChunkMap | None = None
    """The map of the parent."""


def base_of(repository: Repository, history: list[Revision]) -> Base:
    """Return what may be built upon: the reliable revisions of `history` in the job's storage."""
    for revision in history:
        if revision.suspect:
            # until it is read, nobody knows which chunks are damaged, and other revisions may share them
            log.warning("revision %s is distrusted: this backup is a full one and builds upon nothing", revision.id)
            return Base(history, [])
    storage, boot = repository.storages.identity, boot_id()
    candidates = [revision for revision in history if revision.storage == storage and reliable(revision, boot)]
    return Base(history, candidates, *(first_sound(repository, reversed(candidates)) or ()))


def clean_up(repository: Repository) -> list[Revision]:
    """Remove what interrupted backups and removals left; return the revisions, those in the trash included.

    The caller holds `.backup`.
    """
    records = repository.records
    # once: of several listings, the one of the records may be the one that fails, and all would be orphans
    names = names_in(repository.directory)
    for revision_id in begun(names):
        # a record counts, sound or not: the backup was complete, and only what tells that it ran was left
        if records.record_path(revision_id).exists():
            end(repository.directory, revision_id)
        else:
            log.info("removing the incomplete revision %s", revision_id)
            repository.remove(revision_id, "clean up")
    # one whose record is published is no leftover, even if it can not be fetched: only an operator gives it up
    for revision_id in orphans(names) - {*begun(names)} - repository.published_records():
        log.info("removing what is left of revision %s", revision_id)
        repository.remove(revision_id, "clean up")
    for name in names:
        if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX):
            # what somebody writes at this moment has its own name by now
            (repository.directory / name).unlink(missing_ok=True)
    sound, damaged = records.survey(names, trash=True)
    for error in damaged:
        log.warning("%s" if error.unread else "%s; 'backy forget -r ID' removes it", error)
    return sound
