"""Clean up the leftovers of a killed command, or of a machine that stopped, in a repository."""

from __future__ import annotations

import logging

from backy.durable import TEMPORARY_SUFFIX
from backy.repository.repository import Repository
from backy.repository.revision import Revision

log = logging.getLogger(__name__)


def clean_up(repository: Repository) -> list[Revision]:
    """Remove revisions that are incomplete; return the complete revisions. The caller holds `.backup`."""
    sound, damaged = repository.records.survey()
    for error in damaged:
        log.warning("%s; 'backy forget -r ID' removes it", error)
    complete = [revision for revision in sound if revision.complete]
    for revision in sound:
        if not revision.complete:
            log.info("removing the incomplete revision %s", revision.id)
            repository.remove(revision.id)
    # a damaged record counts: only an operator decides that its revision is given up
    known = {path.stem for path in repository.directory.glob("*.rev")}
    # the map goes last when a revision is removed, so one without a record tells of an interrupted removal
    for revision_id in {path.stem for path in repository.records.maps()} - known:
        log.info("removing what is left of revision %s", revision_id)
        repository.remove(revision_id)
    for path in repository.directory.glob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink()
    return complete
