"""Doubts revisions after a source hid a change, as nobody knows when it began to."""

import logging
from collections.abc import Callable, Collection
from datetime import datetime

from backy.api import chunk_count
from backy.repository.journal.replay import DOUBT
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Wrong
from backy.text.phrases import counted

log = logging.getLogger(__name__)


def doubted(revision: Revision, hidden: Collection[int], seen: Callable[[int], int]) -> tuple[int, ...]:
    """Return the chunks of a revision that are in doubt: those that it took over by what the source told.

    Args:
        revision: The revision.
        hidden: Indexes of the chunks of which the source hid a change.
        seen: Returns the number of the last revision for which a chunk was read from the source, or compared with it.
    """
    return tuple(sorted(one for one in hidden if one < chunk_count(revision.size) and seen(one) < revision.seq))


def doubt(
    repository: Repository, hidden: Collection[int], seen: Callable[[int], int], now: datetime
) -> tuple[str, ...]:
    """Call revisions wrong in chunks of which the source hid a change; log and return the ids of those where it is new.

    The caller holds `.backup`. Nothing takes this back: what reads only the storage can not know better.
    """
    changed = []
    # the oldest first: the newest is built upon, so that after a crash in between all of this is found again
    for revision in repository.records.history(trash=True):
        known = revision.state.wrong or Wrong((), now)
        chunks = tuple(sorted({*known.chunks, *doubted(revision, hidden, seen)}))
        if chunks != known.chunks:
            repository.records.change(revision, DOUBT, wrong=Wrong(chunks, known.since))
            changed.append(revision.id)
    if changed:
        text = "the source hid a change of %s; wrong, as they took over what they had not read: %s"
        log.error(text, counted(len(hidden), "chunk"), ", ".join(changed))
        # a raw image that is the newest one loses its link
        repository.link_last()
    return tuple(changed)
