"""Which chunks a repository relies on: those that complete revisions refer to and that are known to be on the disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Container
from pathlib import Path

from backy.errors import DamageError
from backy.repository import Repository
from backy.revision import Revision

log = logging.getLogger(__name__)


def boot_id() -> str:
    """Return what names the time since this machine was started (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def relied_upon(revision: Revision) -> bool:
    """Tell whether all that a revision refers to is on the disk: it was synced, or the machine never stopped."""
    return revision.boot is None or revision.boot == boot_id()


class Referenced(Container[bytes]):
    """The ids that complete revisions refer to; their maps are read at the first question, which few backups ask."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._identities: set[bytes] | None = None
        self._lock = threading.Lock()

    def __contains__(self, identity: object) -> bool:
        with self._lock:
            if self._identities is None:
                self._identities = self._read()
        return identity in self._identities

    def _read(self) -> set[bytes]:
        identities: set[bytes] = set()
        for revision in filter(relied_upon, self._repository.history()):
            try:
                identities |= self._repository.read_map(revision).distinct()
            except DamageError as error:
                log.warning("%s; its chunks are stored anew", error)
        return identities
