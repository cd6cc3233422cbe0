"""Letting tags expire as the schedule in a repository's `config` says, and removing revisions that have none left."""

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
    """Return what `expire` would do, the newest first: nothing without a schedule, or where that is switched off."""
    config = repository.config
    if not config.schedule or not config.expire:
        return []
    return expiries(config.schedule, repository.records.history(), now)


def expire(repository: Repository, clock: Callable[[], datetime]) -> list[Expiry]:
    """Take expired tags away and remove what has none left; return what was done. The space is freed by a purge.

    Raises:
        RepositoryBusyError: a backup is running.
    """
    with exclusive(repository.directory, BACKUP_LOCK):
        done = due(repository, clock())
        for expiry in done:
            if expiry.remaining:
                retag(repository, expiry.revision, expiry.remaining)
            else:
                repository.remove(expiry.revision.id)
            log.info("%s: expired %s, remaining %s", expiry.revision.id, expiry.lost, expiry.remaining)
        if any(not expiry.remaining for expiry in done):
            retain(repository)
    return done
