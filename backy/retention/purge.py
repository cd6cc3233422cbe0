"""Free the space of chunks that no revision refers to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from backy.api import Held, Purged
from backy.errors import DamageError, StorageError
from backy.plugins.events import Events
from backy.repository.live import LiveChunks
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.system.locking import PURGE_LOCK, exclusive

log = logging.getLogger(__name__)


def purge(repository: Repository, events: Events | None = None) -> Purged:
    """Remove all chunks that are not live, while nobody else uses the repository, and tell plugins of it.

    `events` has the plugins; None stands for the installed ones.

    Raises:
        RepositoryBusyError: somebody reads or writes the repository.
        DamageError: a chunk map is damaged or missing, so its chunks are not known; nothing is removed.
        StorageError: nobody knows where a revision has its chunks; nothing is removed.
    """
    with events or Events.installed(repository.config.hooks) as plugins:
        result = _purge(repository)
        plugins.tell("backy_purge_finished", job=repository.job, result=result)
    return result


def _purge(repository: Repository) -> Purged:
    with repository.locked(), exclusive(repository.directory, PURGE_LOCK):
        # then the maps here are those of both sides: what is live only there counts as well
        repository.reconcile(strict=True)
        records = repository.records
        storages = {revision.id: revision.storage for revision in records.survey()[0]}
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
        _require_known(repository, storages)
        known = repository.storages.identified()
        purged = [storage.purge(live.get(identity, set()) | live[None]) for identity, storage in known.items()]
    return Purged(sum(found.files for found in purged), sum(found.bytes for found in purged))


def _require_known(repository: Repository, storages: Mapping[str, str | None]) -> None:
    """Refuse to purge if a revision may have lost its storage's identity, and with it what tells that chunks are live.

    Raises:
        StorageError: no storage has the identity that a revision's state names.
    """
    for revision_id, identity in storages.items():
        try:
            repository.storage(identity)
        except StorageError as error:
            raise StorageError(f"revision {revision_id}: {error}; nothing is purged") from error


def held_by(repository: Repository, revisions: Sequence[Revision]) -> Held:
    """Count what all storages keep only as bases of deltas, while no revision refers to it."""
    counts = []
    for identity, storage in repository.storages.identified().items():
        own = [revision for revision in revisions if repository.store_of(revision) == identity]
        counts.append(storage.held(LiveChunks(repository.records, own)))
    return Held(sum(count.files for count in counts), sum(count.bytes for count in counts))
