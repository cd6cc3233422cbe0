"""Remove a revision, and the data that a source keeps for revisions outside of the repository."""

from __future__ import annotations

import logging

from backy.api import KeepingSource
from backy.plugins.events import Events
from backy.repository.repository import Repository

log = logging.getLogger(__name__)


def forget(repository: Repository, specification: str, events: Events | None = None) -> str:
    """Remove the revision that SPEC names and the data that the source keeps for it; return its id.

    By its full id, a revision can be removed even if its record is damaged or lost. `events` has the plugins; None
    stands for the installed ones.

    Raises:
        RepositoryBusyError: a backup is running.
        RevisionNotFoundError: there is no such revision.
        DamageError: the newest record is damaged, and SPEC is not a full id.
        RefusedError, PluginError: a plugin holds the revision back, or can not be asked.
    """
    with events or Events.installed(repository.config.hooks) as plugins, repository.locked():
        revision_id = _chosen(repository, specification)
        # One whose record is damaged has nothing that a plugin could judge by.
        found = next((one for one in repository.records.survey()[0] if one.id == revision_id), None)
        told = {"job": repository.job, "revision": found.info} if found else None
        if found and told:
            plugins.ask("backy_expiring", closed=True, **told, tags=found.tags)
        repository.remove(revision_id)
        retain(repository)
        if told:
            plugins.tell("backy_revision_removed", **told)
    return revision_id


def _chosen(repository: Repository, specification: str) -> str:
    """Return the id of the revision to forget. Raises the same errors as `forget`."""
    if repository.records.holds(specification):
        return specification
    return repository.records.select(specification).id


def release(repository: Repository) -> bool:
    """Have the source drop all data that it keeps for the job; return False if it is not of that kind.

    Raises:
        RepositoryBusyError: a backup is running.
        BackyError: the plugin can not be loaded, or its source can not be reached.
    """
    if repository.config.source is None:
        return False
    with repository.locked():
        source = repository.source()
        if not isinstance(source, KeepingSource):
            return False
        source.retain(())
    return True


def retain(repository: Repository) -> None:
    """Have the source drop the data that it keeps for removed revisions; log a warning if it can not.

    The caller holds `.backup`.
    """
    if repository.config.source is None:
        return
    try:
        source = repository.source()
        if isinstance(source, KeepingSource):
            source.retain([revision.id for revision in repository.records.history()])
    except Exception as error:  # a plugin may raise anything, and the revision is removed already
        log.warning("what the source keeps for forgotten revisions may still be there: %s", error)
        log.debug("this is where it happened:", exc_info=error)
