"""Frees the space of chunks that no revision refers to; the trash, which a purge empties.

In the trash are revisions that were forgotten or have expired, until their term is over. Their data stay where they
are, and `<id>.state` says since when. Who looks for revisions does not see them; who frees space or moves data does.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from backy.api import Leftover, Purged, ResumingStorage
from backy.errors import DamageError, RepositoryBusyError, StorageError, UnreadError
from backy.plugins.events import Events, RefusedError
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision, State, trusted_now, utc_now
from backy.repository.uses import require_unused
from backy.retention.rules import Expiry
from backy.system.clocks import present
from backy.system.locking import PURGE_LOCK, exclusive
from backy.system.space import is_short

log = logging.getLogger(__name__)
States = Mapping[str, State | None]
"""The states of all revisions by id, None for one that is lost."""
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
        # a revision may have lost its storage's identity, and with it what tells that chunks are live
        for identity, revision_id in storages.items():
            try:
                repository.storage(identity)
            except StorageError as error:
                raise StorageError(f"revision {revision_id}: {error}; nothing is purged") from error
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


def discard(repository: Repository, revision: Revision, act: str, now: datetime, note: str | None = None) -> None:
    """Put a revision into the trash, or remove it if the trash keeps nothing; the caller holds `.backup`.

    One whose chunks nobody knows is removed: it can not be restored, and would keep all space from being freed. So is
    one whose state can not be read: that it is in the trash would have to be written there.
    """
    if repository.config.trash and not revision.unread and repository.records.has_map(revision):
        repository.records.change(revision, act, note, forgotten=_trusted(repository, now))
        repository.unlink(revision.id)
    else:
        repository.remove(revision.id, act, note)


def may_go(repository: Repository, events: Events, otherwise: str, expiry: Expiry) -> bool:
    """Return whether nobody uses what goes and no plugin holds it back; else log what becomes of it `otherwise`.

    Raises:
        PluginError: a plugin that may hold back revisions can not be asked.
    """
    revision = expiry.revision
    try:
        require_unused(repository.directory, revision.id)
        events.ask("backy_expiring", closed=True, job=repository.job, revision=revision.info, tags=expiry.lost)
    except (RefusedError, RepositoryBusyError) as error:
        log.info("%s: %s: %s", revision.id, otherwise, error)
        return False
    return True


def over(repository: Repository, states: States, now: datetime, *, everything: bool = False) -> list[str]:
    """Return the ids of what has been in the trash for its term, or of all of it."""
    trusted, term = _trusted(repository, now), repository.config.trash
    forgotten = {one: state.forgotten for one, state in states.items() if state and state.forgotten}
    return [one for one, since in forgotten.items() if everything or trusted - since >= term]


def empty(repository: Repository, states: States, now: datetime, events: Events, *, everything: bool = False) -> None:
    """Remove for good what has been in the trash for its term, or all of it; the caller holds `.backup`.

    What a plugin holds back stays.

    Raises:
        PluginError: a plugin that may hold back revisions can not be asked; nothing was removed.
    """
    going = []
    for revision_id in over(repository, states, now, everything=everything):
        try:
            revision = repository.records.read(revision_id)
        except DamageError as error:
            log.warning("%s: it stays in the trash", error)
            continue
        if may_go(repository, events, "it stays in the trash", Expiry(revision, ())):
            going.append(revision)
    # all are asked first: if one plugin can not answer, nothing goes
    for revision in going:
        repository.remove(revision.id, "purge")
        events.tell("backy_revision_purged", job=repository.job, revision=revision.info)


def _trusted(repository: Repository, now: datetime) -> datetime:
    """Return the time by which the term is counted: a clock that jumps ahead must not empty the trash."""
    records: list[Revision] = []
    # the newest one is enough: counted on from another one, the time is the same or less
    with suppress(FileNotFoundError, DamageError):
        records = [repository.records.read(repository.records.linked() or "")]
    if not any(record.boot for record in records):
        records = repository.records.survey(trash=True)[0]
    return trusted_now(records, present(now), repository.config.allowance)
