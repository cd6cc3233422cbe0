"""Deals with damaged chunks: keeps evidence, repairs them if possible, and distrusts the revisions that refer to them.

A backup never builds upon a distrusted revision.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from backy.api import Progress, Storage
from backy.errors import MOST_FINDINGS, BackyError, ChunkDamageError, StorageError
from backy.image.chunkmap import ChunkMap
from backy.image.stored import StoredImage
from backy.integrity import quarantine
from backy.integrity.quarantine import Finding
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision
from backy.system.parallel import in_parallel
from backy.text.phrases import counted

log = logging.getLogger(__name__)


def damage_of(image: StoredImage, index: int) -> ChunkDamageError | None:
    """Read chunk `index` of `image` and return its damage, or None if it is sound."""
    try:
        image.chunk(index)
    except ChunkDamageError as error:
        return error
    return None


def damaged_chunks(image: StoredImage, indexes: Iterable[int], progress: Progress) -> dict[int, ChunkDamageError]:
    """Read the chunks at `indexes` and return the damage by index; only the first few errors keep their evidence."""
    found: dict[int, ChunkDamageError] = {}
    # Results wait for their turn: `damage_of` does not keep the content of sound chunks in memory meanwhile.
    for index, error in in_parallel(lambda index: (index, damage_of(image, index)), indexes, image.threads):
        progress(image.chunks.length(index))
        if error is not None:
            found[index] = error if len(found) < MOST_FINDINGS else error.without_evidence()
    return found


def report_damage(
    repository: Repository, errors: Sequence[ChunkDamageError], clock: Clock, *, repaired: bool = False
) -> None:
    """Log damaged chunks and keep evidence of the first few; the caller holds `.backup`.

    Args:
        repository: Keeps the evidence.
        errors: The damage, one error for each chunk.
        clock: Returns the time.
        repaired: Whether the chunks are sound again.
    """
    for error in errors[:MOST_FINDINGS]:
        chunk_id = error.chunk_id.hex()
        # Revisions share chunks, so the finding names no revision.
        finding = Finding(name=chunk_id, timestamp=clock(), chunk_id=chunk_id, cause=error.cause, repaired=repaired)
        where = quarantine.keep_if_possible(repository.directory, finding, None, error.evidence)
        log.warning("%s; %s; %s", error, "repaired from the source" if repaired else "not repaired", where)
    if len(errors) > MOST_FINDINGS:
        more = counted(len(errors) - MOST_FINDINGS, "more chunk is", "more chunks are")
        log.warning("%s damaged, without evidence being kept", more)


def chunk_ids(errors: Iterable[ChunkDamageError]) -> set[bytes]:
    """Return the ids of damaged chunks and of the base chunks that make them damaged."""
    return {chunk_id for error in errors for chunk_id in (error.chunk_id, error.base) if chunk_id is not None}


def referring(repository: Repository, damaged: Collection[bytes]) -> tuple[str, ...]:
    """Return the ids of the revisions that refer to chunks with the ids `damaged`, as far as maps can be read."""
    found = []
    for revision in repository.records.history():
        with suppress(BackyError, OSError):
            if repository.records.read_map(revision).indexes(damaged):
                found.append(revision.id)
    return tuple(found)


def distrusted(repository: Repository, revision: Revision, damaged: Iterable[int] = ()) -> Revision:
    """Distrust a revision and note the indexes of its damaged chunks; the caller holds `.backup`."""
    found = tuple(sorted(set(damaged)))
    return repository.records.change(revision, "distrust", distrusted=True, damaged=found, verified=None)


def whole_again(repository: Repository, revision: Revision, verified: datetime | None = None) -> Revision:
    """Lift the doubt about a revision that was repaired, or read as a whole at `verified`.

    The caller holds `.backup`.
    """
    # known now, even if its state was lost: all of it was read from this storage
    storage = repository.store_of(revision)
    lifted: dict[str, Any] = {"distrusted": False, "damaged": (), "verified": verified}
    return repository.records.change(revision, "verify" if verified else "repair", **lifted, storage=storage)


def repair_or_distrust(
    repository: Repository, damaged: Collection[bytes], donor: StoredImage | None = None
) -> list[str]:
    """Repair damaged chunks in all revisions; distrust each revision in which one stays damaged.

    The caller holds `.backup`.

    Args:
        repository: Has the revisions.
        damaged: Ids of the chunks.
        donor: A sound image, from which chunks are repaired that it has too.

    Returns:
        Ids of the revisions that refer to damage.
    """
    if not damaged:
        return []
    repairer = Repairer(repository, damaged, donor)
    # those in the trash as well: who gets one back has to know
    history = repository.records.history(trash=True)
    return [revision.id for revision in history if _distrust_if_damaged(repository, revision, repairer, damaged)]


def _distrust_if_damaged(
    repository: Repository, revision: Revision, repairer: Repairer, damaged: Collection[bytes]
) -> bool:
    """Distrust a revision that refers to damage which can not be repaired; return whether it does."""
    try:
        chunks = repository.records.read_map(revision)
        bad = repairer.still_damaged(revision, chunks, chunks.indexes(damaged))
        # A state that names damaged chunks counts as checked: one that is suspect is yet to be read as a whole.
        if bad and not revision.suspect:
            distrusted(repository, revision, [*revision.damaged, *bad])
    except (BackyError, OSError) as error:
        # One revision that can not be read must not keep the others trusted.
        if repository.records.has(revision):
            log.warning("revision %s can not be looked at for damage: %s", revision.id, error)
        return False
    return bool(bad)


class Repairer:
    """Checks chunks that were damaged, and repairs them from a sound image, the donor, if it has their content."""

    def __init__(
        self, repository: Repository, damaged: Collection[bytes] = (), donor: StoredImage | None = None
    ) -> None:
        self._repository = repository
        self._donor = donor
        self._offered = {donor.chunks[index]: index for index in donor.chunks.indexes(damaged)} if donor else {}
        self._sound: dict[tuple[str, bytes], bool] = {}
        """What is known of shared chunks, by storage and chunk id."""

    def still_damaged(self, revision: Revision, chunks: ChunkMap, indexes: Sequence[int]) -> list[int]:
        """Return those of the `indexes` whose chunks are damaged now and can not be repaired."""
        if not indexes:
            return []
        storage = self._repository.storage(revision.storage)
        with self._repository.open_image(revision, chunks) as image:
            return [index for index in indexes if not self._is_sound(revision, storage, image, index)]

    def _is_sound(self, revision: Revision, storage: Storage, image: StoredImage, index: int) -> bool:
        key = self._repository.store_of(revision), image.chunks[index]
        # Without shared chunks each revision has a copy of its own, which may be sound although another is damaged.
        if key not in self._sound or not storage.shares_chunks:
            self._sound[key] = damage_of(image, index) is None or self._repair(revision.id, storage, image, index)
        return self._sound[key]

    def _repair(self, revision_id: str, storage: Storage, image: StoredImage, index: int) -> bool:
        """Store a chunk again if the donor has its content; return whether the chunk is sound now."""
        chunk_id = image.chunks[index]
        if self._donor is None or chunk_id not in self._offered:
            return False
        try:
            storage.repair(revision_id, index, chunk_id, self._donor.chunk(self._offered[chunk_id]))
        except (StorageError, OSError) as error:
            log.warning("chunk %s of revision %s can not be repaired: %s", chunk_id.hex(), revision_id, error)
            return False
        # Only reading proves that the storage has replaced what was damaged.
        return damage_of(image, index) is None
