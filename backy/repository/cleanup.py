"""Clean up the leftovers of a killed command, or of a machine that stopped, in a repository."""

from __future__ import annotations

import logging

from backy.durable import TEMPORARY_SUFFIX
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.running import begun, end

log = logging.getLogger(__name__)


def clean_up(repository: Repository) -> list[Revision]:
    """Remove what interrupted backups and removals left; return the revisions. The caller holds `.backup`."""
    records = repository.records
    for error in records.survey()[1]:
        log.warning("%s; 'backy forget -r ID' removes it", error)
    for revision_id in begun(repository.directory):
        # a record counts, sound or not: the backup was complete, and only what tells that it ran was left
        if records.record_path(revision_id).exists():
            end(repository.directory, revision_id)
        else:
            log.info("removing the incomplete revision %s", revision_id)
            repository.remove(revision_id)
    # one whose record is published is no leftover, even if it can not be fetched: only an operator gives it up
    for revision_id in records.orphans() - repository.published_records():
        log.info("removing what is left of revision %s", revision_id)
        repository.remove(revision_id)
    for path in repository.directory.glob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)  # what somebody writes at this moment has its own name by now
    return records.survey()[0]
