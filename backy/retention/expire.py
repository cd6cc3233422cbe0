"""Expire tags by the schedule in a repository's `config`, and remove revisions that have none left."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

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


def expire(repository: Repository, clock: Callable[[], datetime]) -> list[Expiry]:
    """Remove expired tags, and revisions without any left; return what was done. A purge frees the space.

    Raises:
        RepositoryBusyError: a backup is running.
    """
    with exclusive(repository.directory, BACKUP_LOCK):
        # under the lock, so that no tag changes between the decision and its execution
        done = due(repository, clock())
        for expiry in done:
            if expiry.remaining:
                retag(repository, expiry.revision, expiry.remaining)
            else:
                repository.remove(expiry.revision.id)
            log.info("%s: expired %s, remaining %s", expiry.revision.id, expiry.lost, expiry.remaining)
        # once for all removed revisions: a source may be far away
        if any(not expiry.remaining for expiry in done):
            retain(repository)
    return done
