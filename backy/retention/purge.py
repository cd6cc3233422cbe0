"""Free the space of chunks that no revision refers to."""

import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta

from backy.api import Leftover, Purged, ResumingStorage
from backy.errors import DamageError, StorageError, UnreadError
from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.repository.revision import Clock, utc_now
from backy.retention.trash import States, empty
from backy.system.locking import PURGE_LOCK, exclusive
from backy.system.space import is_short

log = logging.getLogger(__name__)


KEPT = timedelta(days=7)
"""How long what a backup left that did not end is kept for the next one."""


def purge(
    repository: Repository, events: Events | None = None, clock: Clock = utc_now, *, everything: bool = False
) -> Purged:
    """Remove what was in the trash for its term, and all chunks that are not live then, while nobody reads or writes.

    What a backup left that did not end goes with them after a week, or at once if the disk has little space left.

    Args:
        repository: Is purged.
        events: Has the plugins that are told; None stands for the installed ones.
        clock: Returns the time.
        everything: Whether to empty the trash before its term.

    Raises:
        RepositoryBusyError: somebody reads or writes the repository.
        DamageError: a chunk map is damaged or missing, so its chunks are not known; no chunk is removed.
        StorageError: nobody knows where a revision has its chunks; no chunk is removed.
        PluginError: a plugin that may hold back revisions can not be asked; nothing is removed.
    """
    with events or Events.installed(repository.config.hooks) as plugins:
        with repository.locked():
            states = repository.records.states()
            empty(repository, states, clock(), plugins, everything=everything)
            for storage, left in leftovers(repository):
                if clock() - left.since > KEPT or is_short(repository.directory):
                    storage.discard()
            result = sweep(repository, states)
        plugins.tell("backy_purge_finished", job=repository.job, result=result)
    return result


def sweep(repository: Repository, states: States) -> Purged:
    """Remove all chunks that are neither live nor left for the next backup.

    The caller holds `.backup` and has the `states`. Raises the errors of `purge`.
    """
    with exclusive(repository.directory, PURGE_LOCK), repository.records.recording():
        # then the maps here are those of both sides: what is live only there counts as well
        repository.reconcile(strict=True)
        records = repository.records
        # None has the chunks of maps whose state is lost: they may be in any storage
        live: dict[str | None, set[bytes]] = {None: set()}
        storages: dict[str | None, str] = {}
        # the maps of all records, too, to notice one that is missing
        for revision_id in records.mapped():
            state = states.get(revision_id)
            identity = state.storage if state else None
            if revision_id in states:
                storages[identity] = revision_id
            try:
                live.setdefault(identity, set()).update(records.load_map(revision_id).distinct())
            except DamageError as error:
                way = "purge --trash" if state and state.forgotten else f"forget -r {revision_id}"
                advice = "" if isinstance(error, UnreadError) else f": 'backy {way}' first"
                raise DamageError(f"{error}; nothing is purged, as its chunks are not known{advice}") from error
        _require_known(repository, storages)
        # one that was chosen by hand has no store before its first backup
        repository.require_store()
        known = repository.storages.identified()
        purged = [storage.purge(live.get(identity, set()) | live[None]) for identity, storage in known.items()]
    return Purged(sum(found.files for found in purged), sum(found.bytes for found in purged))


def leftovers(repository: Repository) -> Iterator[tuple[ResumingStorage, Leftover]]:
    """Yield what interrupted and failed backups have left for the next one, with the storage that has it."""
    for storage in repository.storages.all():
        if isinstance(storage, ResumingStorage) and (left := storage.leftover()):
            yield storage, left


def _require_known(repository: Repository, storages: Mapping[str | None, str]) -> None:
    """Refuse to purge if a revision may have lost its storage's identity, and with it what tells that chunks are live.

    Raises:
        StorageError: no storage has the identity that a revision's state names.
    """
    for identity, revision_id in storages.items():
        try:
            repository.storage(identity)
        except StorageError as error:
            raise StorageError(f"revision {revision_id}: {error}; nothing is purged") from error
