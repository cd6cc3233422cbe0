"""Freeing the space of what no revision refers to."""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet

from backy.api import Purged
from backy.errors import DamageError, StorageError
from backy.repository.repository import Repository
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, exclusive

log = logging.getLogger(__name__)


def purge(repository: Repository) -> Purged:
    """Remove unreferenced chunks, alone in the repository.

    Every chunk map counts, also one whose record is damaged: what can still be mended is not thrown away. As nobody
    knows which storage that one is of, it counts for all.

    Raises:
        RepositoryBusyError: somebody reads or writes the repository.
        DamageError: a chunk map is damaged or missing, so what it refers to is not known; nothing is removed.
    """
    with exclusive(repository.directory, BACKUP_LOCK), exclusive(repository.directory, PURGE_LOCK):
        records = repository.records
        revisions = records.survey()[0]
        storages = {revision.id: revision.storage for revision in revisions}
        live: dict[str | None, set[bytes]] = {None: set()}
        # maps without a record count, and so do those that a record promises and that are missing
        for path in {*records.maps(), *(records.map_path(revision.id) for revision in records.history())}:
            try:
                live.setdefault(storages.get(path.stem), set()).update(records.load_map(path).distinct())
            except DamageError as error:
                raise DamageError(
                    f"{error}; nothing is purged, for its chunks are not known: 'backy forget -r {path.stem}' first"
                ) from error
        named = repository.storages(revisions)
        purged = [storage.purge(live.get(name, set()) | live[None]) for name, storage in named.items()]
        previous = repository.config.previous_storage
        if previous is not None and previous.type not in named:
            purged.append(_purge_previous(repository, previous.type, live[None]))
    return Purged(sum(found.files for found in purged), sum(found.bytes for found in purged))


def _purge_previous(repository: Repository, name: str, live: AbstractSet[bytes]) -> Purged:
    """Purge the storage that the job had before and no record names any more.

    An interrupted conversion may have disposed of it, which is no reason to fail: to convert again goes on.
    """
    try:
        return repository.storage(name).purge(live)
    except StorageError as error:
        log.warning("%s; no revision is kept there, 'backy convert' gives it up", error)
        return Purged(0, 0)
