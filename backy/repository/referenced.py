"""Which chunks a repository relies on: those that complete revisions refer to and that are known to be on the disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Iterable
from pathlib import Path

from backy.errors import DamageError
from backy.image.chunkmap import ChunkMap
from backy.repository.records import Records
from backy.repository.revision import Revision, Trust

log = logging.getLogger(__name__)


def boot_id() -> str:
    """Return what names the time since this machine was started (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def relied_upon(revision: Revision) -> bool:
    """Tell whether all that a revision refers to is on the disk and sound, as far as is known.

    It is if it was synced or the machine has not stopped since, and if nobody distrusts it.
    """
    return revision.trust is not Trust.DISTRUSTED and (revision.boot is None or revision.boot == boot_id())


class Referenced(Container[bytes]):
    """The ids that some revisions refer to; their maps are read at the first question, which few backups ask."""

    def __init__(self, records: Records, revisions: Iterable[Revision]) -> None:
        self._records = records
        self._revisions = revisions
        self._chunk_ids: set[bytes] | None = None
        self._lock = threading.Lock()

    def __contains__(self, chunk_id: object) -> bool:
        with self._lock:
            if self._chunk_ids is None:
                self._chunk_ids = self._read()
        return chunk_id in self._chunk_ids

    def _read(self) -> set[bytes]:
        """Read the maps, of which each one has little that the one before has not."""
        chunk_ids: set[bytes] = set()
        before: ChunkMap | None = None
        for revision in self._revisions:
            try:
                chunks = self._records.read_map(revision)
            except DamageError as error:
                log.warning("%s", error)
                continue
            chunk_ids |= chunks.distinct(before)
            before = chunks
        return chunk_ids
