"""What a new revision builds upon: the parent, and the revisions whose chunks it may share."""

import logging
from typing import NamedTuple

from backy.image.chunkmap import ChunkMap
from backy.repository.live import first_sound, reliable
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.system.clocks import boot_id

log = logging.getLogger(__name__)


class Base(NamedTuple):
    """What a new revision builds upon."""

    history: list[Revision]
    candidates: list[Revision]
    """Revisions whose chunks need not be stored again."""
    parent: Revision | None = None
    chunks: ChunkMap | None = None
    """The map of the parent."""


def base_of(repository: Repository, history: list[Revision]) -> Base:
    """Return what may be built upon: the reliable revisions of `history` in the job's storage."""
    for revision in history:
        if revision.suspect:
            # until it is read, nobody knows which chunks are damaged, and other revisions may share them
            log.warning("revision %s is distrusted: this backup is a full one and builds upon nothing", revision.id)
            return Base(history, [])
    storage, boot = repository.storages.identity, boot_id()
    candidates = [revision for revision in history if revision.storage == storage and reliable(revision, boot)]
    return Base(history, candidates, *(first_sound(repository, reversed(candidates)) or ()))
