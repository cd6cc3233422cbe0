"""Holds the revision before an image shrank, until somebody says that this was meant or it is too old for the schedule.

An image that is smaller than before, or has only zeroes where it had data, may have been lost before it was backed up.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress

from backy.errors import DamageError, RevisionNotFoundError
from backy.image.chunkmap import ZERO, ChunkMap
from backy.repository.repository import Repository
from backy.repository.revision import PINNED, Birth, Revision, Shrunk
from backy.retention.tags import retag

log = logging.getLogger(__name__)
SHRUNK = f"{PINNED}shrunk"
"""The tag of a revision after which the image shrank."""


def pin_before_shrinking(
    repository: Repository, history: Sequence[Revision], birth: Birth, new: ChunkMap, parent: ChunkMap | None
) -> Shrunk | None:
    """Pin the last of `history` if the image has shrunk to one with the map `new`; return what it was, else None.

    `parent` is the map of the parent, which is not read again: maps of large images take much memory. The caller holds
    `.backup`, and writes the record afterwards: so no crash leaves it without the pin.
    """
    for known in reversed(history):
        with suppress(DamageError, RevisionNotFoundError):
            # read again: the backup may have put it in doubt
            before = repository.records.current(known)
            if before.doubtful:
                continue
            old = parent if parent and birth.parent == before.id else repository.records.read_map(before)
            break
    else:
        return None
    emptied = old.data_size() > 0 and all(index >= len(new) or new[index] == ZERO for index in old.data())
    if new.size >= old.size and not emptied:
        return None
    # whatever it was pinned for before, its time begins now
    repository.records.change(before, "pin", tags=tuple(sorted({*before.tags, SHRUNK})), pinned=birth.trusted_time)
    shrunk = Shrunk(before.id, old.size, old.data_size(), new.data_size())
    log.warning("revision %s %s; '%s' holds revision %s", birth.id, shrunk.to(new.size), SHRUNK, before.id)
    return shrunk


def accept(repository: Repository, specification: str | None = None) -> list[Revision]:
    """Take the pin from the revision before the one that SPEC names, or from all; return those that had it.

    Raises:
        RepositoryBusyError: a backup is running.
        RevisionNotFoundError: there is no such revision.
    """
    with repository.locked():
        history = repository.records.history()
        pinned = [one for one in history if SHRUNK in one.tags]
        if specification is not None:
            shrunk = repository.records.select(specification).shrunk
            pinned = [one for one in pinned if shrunk and one.id == shrunk.revision]
        return [retag(repository, one, {*one.tags} - {SHRUNK}, "accept") for one in pinned]
