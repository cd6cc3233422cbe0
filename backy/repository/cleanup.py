"""Clean up the leftovers of a killed command, or of a machine that stopped, in a repository."""

import logging

from backy.durable import TEMPORARY_SUFFIX, names_in
from backy.repository.records import orphans
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.running import begun, end

log = logging.getLogger(__name__)


def clean_up(repository: Repository) -> list[Revision]:
    """Remove what interrupted backups and removals left; return the revisions, those in the trash included.

    The caller holds `.backup`.
    """
    records = repository.records
    # once: of several listings, the one of the records may be the one that fails, and all would be orphans
    names = names_in(repository.directory)
    for revision_id in begun(names):
        # a record counts, sound or not: the backup was complete, and only what tells that it ran was left
        if records.record_path(revision_id).exists():
            end(repository.directory, revision_id)
        else:
            log.info("removing the incomplete revision %s", revision_id)
            repository.remove(revision_id, "clean up")
    # one whose record is published is no leftover, even if it can not be fetched: only an operator gives it up
    for revision_id in orphans(names) - {*begun(names)} - repository.published_records():
        log.info("removing what is left of revision %s", revision_id)
        repository.remove(revision_id, "clean up")
    for name in names:
        if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX):
            # what somebody writes at this moment has its own name by now
            (repository.directory / name).unlink(missing_ok=True)
    sound, damaged = records.survey(names, trash=True)
    for error in damaged:
        log.warning("%s" if error.unread else "%s; 'backy forget -r ID' removes it", error)
    return sound
