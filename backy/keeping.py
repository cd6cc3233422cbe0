"""What a source keeps for revisions outside of the repository, and when it lets go of that."""

from __future__ import annotations

import logging

from backy.api import KeepingSource
from backy.repository import Repository

log = logging.getLogger(__name__)


def release(repository: Repository) -> bool:
    """Let the source drop all that it keeps for the job; tell whether it ever keeps anything.

    Raises:
        BackyError: the plugin can not be loaded, or its source can not be reached.
    """
    source = repository.source()
    if not isinstance(source, KeepingSource):
        return False
    source.retain(())
    return True


def retain(repository: Repository) -> None:
    """Let the source drop what it keeps for revisions that are gone. It may be out of reach, which harms nothing."""
    try:
        source = repository.source()
        if isinstance(source, KeepingSource):
            source.retain([revision.id for revision in repository.history()])
    except Exception as error:  # whatever a plugin does: the revision is gone
        log.warning("what the source keeps for forgotten revisions may still be there: %s", error)
        log.debug("this is where it happened:", exc_info=error)
