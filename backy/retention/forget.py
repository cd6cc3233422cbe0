"""Removing a revision, and what a source keeps for revisions outside of the repository."""

from __future__ import annotations

import logging

from backy.api import KeepingSource
from backy.errors import DamageError
from backy.repository.repository import Repository
from backy.system.locking import BACKUP_LOCK, exclusive

log = logging.getLogger(__name__)


def forget(repository: Repository, specification: str) -> str:
    """Remove the revision that SPEC stands for and what the source keeps for it; return its id.

    The full id also removes a revision whose record is damaged or lost.

    Raises:
        RepositoryBusyError: a backup is running.
        RevisionNotFoundError: there is no such revision.
        DamageError: a record is damaged, and the revision is not named by its full id.
    """
    with exclusive(repository.directory, BACKUP_LOCK):
        revision_id = _chosen(repository, specification)
        repository.remove(revision_id)
        retain(repository)
    return revision_id


def _chosen(repository: Repository, specification: str) -> str:
    """Return the id of the revision to remove."""
    if repository.records.holds(specification):
        return specification
    # a revision whose record is damaged has no place in the order of time: '0' or 'last' may stand for another one now
    for error in repository.records.survey()[1]:
        raise DamageError(f"{error}; until it is forgotten, revisions are forgotten by their full ids only")
    return repository.records.select(specification).id


def release(repository: Repository) -> bool:
    """Have the source drop all that it keeps for the job; return whether it ever keeps anything.

    Raises:
        RepositoryBusyError: a backup is running.
        BackyError: the plugin can not be loaded, or its source can not be reached.
    """
    with exclusive(repository.directory, BACKUP_LOCK):
        source = repository.source()
        if not isinstance(source, KeepingSource):
            return False
        source.retain(())
    return True


def retain(repository: Repository) -> None:
    """Have the source drop what it keeps for revisions that are gone; log a warning if it can not.

    The caller holds the lock `.backup`.
    """
    try:
        source = repository.source()
        if isinstance(source, KeepingSource):
            source.retain([revision.id for revision in repository.records.history()])
    except Exception as error:  # whatever a plugin does: the revision is gone
        log.warning("what the source keeps for forgotten revisions may still be there: %s", error)
        log.debug("this is where it happened:", exc_info=error)
