"""What follows when stored chunks turn out to be damaged: evidence is kept, and what can be is mended.

Every revision that still refers to damage becomes distrusted. Nothing is built upon a distrusted revision.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime

import msgspec

from backy.api import Progress, Storage
from backy.errors import MOST_FINDINGS, BackyError, ChunkDamageError, StorageError
from backy.image.chunkmap import ChunkMap
from backy.image.stored import StoredImage
from backy.integrity import quarantine
from backy.integrity.quarantine import Finding
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Trust
from backy.system.parallel import in_parallel
from backy.text.phrases import counted

log = logging.getLogger(__name__)


def damage_of(image: StoredImage, index: int) -> ChunkDamageError | None:
    """Read chunk `index` and return what is wrong with it, None if it is sound."""
    try:
        image.chunk(index)
    except ChunkDamageError as error:
        return error
    return None


def damaged_chunks(
    image: StoredImage, indexes: Iterable[int], progress: Progress
) -> list[tuple[int, ChunkDamageError]]:
    """Read the chunks `indexes` and return those that are damaged; the first few errors have evidence with them."""

    def check(index: int) -> tuple[int, ChunkDamageError | None]:
        return index, damage_of(image, index)

    found: list[tuple[int, ChunkDamageError]] = []
    for index, error in in_parallel(check, indexes):
        progress(image.chunks.length(index))
        if error is not None:
            found.append((index, error if len(found) < MOST_FINDINGS else error.without_evidence()))
    return found


def report_damage(
    repository: Repository, errors: Sequence[ChunkDamageError], clock: Callable[[], datetime], *, mended: bool
) -> None:
    """Keep the evidence of the first few damaged chunks and say all that in the log; the caller holds `.backup`."""
    for error in errors[:MOST_FINDINGS]:
        finding = Finding(
            name=error.chunk_id.hex(),
            timestamp=clock(),
            revision=None,
            chunk=None,
            identity=error.chunk_id.hex(),
            cause=error.cause,
            mended=mended,
        )
        where = quarantine.keep_if_possible(repository.directory, finding, None, error.evidence)
        log.warning("%s; %s; %s", error, "mended from the source" if mended else "not mended", where)
    if len(errors) > MOST_FINDINGS:
        more = counted(len(errors) - MOST_FINDINGS, "more chunk is", "more chunks are")
        log.warning("%s damaged, without evidence being kept", more)


def chunk_ids(errors: Iterable[ChunkDamageError]) -> set[bytes]:
    """Return the ids of damaged chunks, those that others are made of included."""
    return {chunk_id for error in errors for chunk_id in (error.chunk_id, error.base) if chunk_id is not None}


def settle(repository: Repository, damaged: Collection[bytes], donor: StoredImage | None) -> list[str]:
    """Distrust every complete revision that refers to damage which can not be mended; return their ids.

    `damaged` are the ids of chunks found damaged somewhere. Each revision's own copy is looked at, for a storage may
    keep several, and mended from `donor` if that has the content. A revision that can not be dealt with is told in
    the log and hinders none of the others. The caller holds `.backup`.
    """
    if not damaged:
        return []
    mender = Mender(repository, damaged, donor)
    return [revision.id for revision in repository.records.history() if _settle(repository, revision, mender, damaged)]


def _settle(repository: Repository, revision: Revision, mender: Mender, damaged: Collection[bytes]) -> bool:
    """Tell whether a revision refers to damage; then it is distrusted."""
    try:
        chunks = repository.records.read_map(revision)
        bad = mender.damaged(revision, chunks, chunks.indexes(damaged))
        if bad and not revision.suspect:  # one that is doubted as a whole is yet to be read as a whole
            mark_damaged(repository, revision, [*revision.damaged, *bad])
    except (BackyError, OSError) as error:
        log.warning("revision %s can not be looked at for damage: %s", revision.id, error)
        return False
    return bool(bad)


def mark_damaged(repository: Repository, revision: Revision, chunks: Iterable[int]) -> Revision:
    """Distrust a revision for its damaged `chunks`."""
    changed = msgspec.structs.replace(revision, trust=Trust.DISTRUSTED, damaged=tuple(sorted(set(chunks))))
    if changed != revision:
        repository.records.write(changed)
    return changed


class Mender:
    """Looks at chunks that were damaged, and mends those whose content a sound image, the donor, has."""

    def __init__(
        self, repository: Repository, damaged: Collection[bytes] = (), donor: StoredImage | None = None
    ) -> None:
        self._repository = repository
        self._donor = donor
        self._offered = {donor.chunks[index]: index for index in donor.chunks.indexes(damaged)} if donor else {}
        self._sound: dict[tuple[str, bytes], bool] = {}
        """What is known of shared chunks, by storage and id."""

    def damaged(self, revision: Revision, chunks: ChunkMap, indexes: Iterable[int]) -> list[int]:
        """Return which of the chunks `indexes` of a revision are damaged now and could not be mended."""
        wanted = list(indexes)
        if not wanted:
            return []
        storage = self._repository.storage(revision.storage)
        with self._repository.open_image(revision, chunks) as image:
            return [index for index in wanted if not self._is_sound(revision, storage, image, index)]

    def _is_sound(self, revision: Revision, storage: Storage, image: StoredImage, index: int) -> bool:
        """Look at a chunk once for all revisions, or in each one where each has copies of its own."""
        key = revision.storage, image.chunks[index]
        if key not in self._sound or not storage.shares_chunks:
            self._sound[key] = damage_of(image, index) is None or self._mend(revision.id, storage, image, index)
        return self._sound[key]

    def _mend(self, revision_id: str, storage: Storage, image: StoredImage, index: int) -> bool:
        chunk_id = image.chunks[index]
        if self._donor is None or chunk_id not in self._offered:
            return False
        try:
            content = self._donor.chunk(self._offered[chunk_id])
            storage.repair(revision_id, index, chunk_id, content)
        except (StorageError, OSError) as error:
            log.warning("chunk %s of revision %s can not be mended: %s", chunk_id.hex(), revision_id, error)
            return False
        return damage_of(image, index) is None
