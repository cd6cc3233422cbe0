"""Expire tags by the schedule in a repository's `config`, and remove revisions that have none left."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from backy.plugins.events import Events, RefusedError
from backy.repository.repository import Repository
from backy.retention.forget import retain
from backy.retention.rules import Expiry, expiries
from backy.retention.tags import retag
from backy.system.locking import BACKUP_LOCK, exclusive

log = logging.getLogger(__name__)


def due(repository: Repository, now: datetime) -> list[Expiry]:
    """Return the revisions that lose tags at `now`, the newest first; none if there is no schedule or it is off."""
    config = repository.config
    if not config.schedule or not config.expire:
        return []
    return expiries(config.schedule, repository.records.history(), now)


def expire(repository: Repository, clock: Callable[[], datetime], events: Events | None = None) -> list[Expiry]:
    """Remove expired tags, and revisions without any left; return what was done. A purge frees the space.

    What a plugin holds back stays as it is. `events` has the plugins; None stands for the installed ones.

    Raises:
        RepositoryBusyError: a backup is running.
        PluginError: a plugin that may hold back revisions can not be asked; nothing was removed.
    """
    with events or Events.installed(repository.config.hooks) as plugins, exclusive(repository.directory, BACKUP_LOCK):
        # under the lock, so that no tag changes between the decision and its execution
        # all are asked first: if one plugin can not answer, nothing goes
        done = [expiry for expiry in due(repository, clock()) if _allowed(repository, plugins, expiry)]
        for expiry in done:
            if expiry.remaining:
                retag(repository, expiry.revision, expiry.remaining)
            else:
                repository.remove(expiry.revision.id)
                plugins.tell("backy_revision_removed", job=repository.job, revision=expiry.revision.info)
            log.info("%s: expired %s, remaining %s", expiry.revision.id, expiry.lost, expiry.remaining)
        # once for all removed revisions: a source may be far away
        if any(not expiry.remaining for expiry in done):
            retain(repository)
    return done


def _allowed(repository: Repository, events: Events, expiry: Expiry) -> bool:
    """Return whether no plugin holds back what expires."""
    lost = tuple(tag for tag in expiry.revision.tags if tag not in expiry.remaining)
    try:
        events.ask("backy_expiring", closed=True, job=repository.job, revision=expiry.revision.info, tags=lost)
    except RefusedError as error:
        log.info("%s: nothing of it expires: %s", expiry.revision.id, error)
        return False
    return True
