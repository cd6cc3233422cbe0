"""Freeing the space of what no revision refers to."""

from __future__ import annotations

from backy.api import Purged
from backy.errors import DamageError
from backy.locking import BACKUP_LOCK, PURGE_LOCK, exclusive
from backy.repository import Repository


def purge(repository: Repository) -> Purged:
    """Remove unreferenced chunks, alone in the repository.

    Every chunk map counts, also one whose record is damaged: what can still be mended is not thrown away.

    Raises:
        RepositoryBusyError: somebody reads or writes the repository.
        DamageError: a chunk map is damaged or missing, so what it refers to is not known; nothing is removed.
    """
    with exclusive(repository.directory, BACKUP_LOCK), exclusive(repository.directory, PURGE_LOCK):
        live: set[bytes] = set()
        for path in {*repository.maps(), *map(repository.map_path, repository.history())}:
            try:
                live |= repository.load_map(path).distinct()
            except DamageError as error:
                raise DamageError(
                    f"{error}; nothing is purged, for its chunks are not known: 'backy forget -r {path.stem}' first"
                ) from error
        return repository.storage().purge(live)
