"""Free the space of chunks that no revision refers to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from backy.api import Held, Purged
from backy.errors import DamageError, StorageError
from backy.plugins.events import Events
from backy.repository.live import LiveChunks
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, exclusive

log = logging.getLogger(__name__)


def purge(repository: Repository, events: Events | None = None) -> Purged:
    """Remove all chunks that are not live, while nobody else uses the repository, and tell plugins of it.

    `events` has the plugins; None stands for the installed ones.

    Raises:
        RepositoryBusyError: somebody reads or writes the repository.
        DamageError: a chunk map is damaged or missing, so its chunks are not known; nothing is removed.
    """
    with events or Events.installed(repository.config.hooks) as plugins:
        result = _purge(repository)
        plugins.tell("backy_purge_finished", job=repository.job, result=result)
    return result


def _purge(repository: Repository) -> Purged:
    with exclusive(repository.directory, BACKUP_LOCK), exclusive(repository.directory, PURGE_LOCK):
        records = repository.records
        revisions = records.survey()[0]
        storages = {revision.id: revision.storage for revision in revisions}
        # None has the chunks of maps whose record is damaged or whose state is lost: they may be in any storage
        live: dict[str | None, set[bytes]] = {None: set()}
        # the maps of all records, too, to notice one that is missing
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
    """Purge the previous storage, which no record names any more."""
    try:
        return repository.storage(name).purge(live)
    # an interrupted conversion may have disposed of it already
    except StorageError as error:
        log.warning("%s; no revision is kept there, 'backy convert' gives it up", error)
        return Purged(0, 0)


def held_by(repository: Repository, revisions: Sequence[Revision]) -> Held:
    """Count what all storages keep only as bases of deltas, while no revision refers to it."""
    counts = []
    for name, storage in repository.storages(revisions).items():
        own = [revision for revision in revisions if repository.storage_name(revision) == name]
        counts.append(storage.held(LiveChunks(repository.records, own)))
    return Held(sum(count.files for count in counts), sum(count.bytes for count in counts))
