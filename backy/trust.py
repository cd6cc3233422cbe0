"""What is thought of the stored revisions, and what follows when a stored chunk turns out to be damaged.

A damaged chunk is mended where its content is at hand; every revision that still refers to a damaged one becomes
distrusted. Nothing is built upon a distrusted revision, so the next backup stores anew what it needs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec

from backy import quarantine
from backy.api import Progress, Storage
from backy.errors import ChunkDamageError, DamageError
from backy.image import StoredImage
from backy.locking import BACKUP_LOCK, exclusive
from backy.pipeline import in_parallel
from backy.quarantine import Finding
from backy.repository import Repository
from backy.revision import Revision, Trust

log = logging.getLogger(__name__)


def damage_of(image: StoredImage, index: int) -> ChunkDamageError | None:
    """Read chunk `index` and return what is wrong with it, None if it is sound."""
    try:
        image.chunk(index)
    except ChunkDamageError as error:
        return error
    return None


def report_damage(repository: Repository, error: ChunkDamageError, now: datetime, *, mended: bool) -> None:
    """Keep the evidence of a damaged chunk and say so in the log."""
    finding = Finding(
        name=error.identity.hex(),
        timestamp=now,
        revision=None,
        chunk=None,
        identity=error.identity.hex(),
        cause=error.cause,
        mended=mended,
    )
    folder = quarantine.keep(repository.directory, finding, None, error.evidence)
    log.warning("%s; %s; evidence is in %s", error, "mended from the source" if mended else "not mended", folder)


def settle(repository: Repository, storage: Storage, identities: set[bytes], donor: StoredImage | None) -> list[str]:
    """Distrust every complete revision that refers to a damaged chunk which can not be mended; return their ids.

    `identities` are the chunks found damaged somewhere; each revision's own copy is looked at, for a storage may keep
    several, and mended from `donor` if that has the content. The caller holds the lock for changing revisions.
    """
    distrusted = []
    for revision in repository.history() if identities else []:
        try:
            chunks = repository.read_map(revision)
        except DamageError as error:
            log.warning("%s", error)
            continue
        places = chunks.places(identities)
        if not places:
            continue
        with storage.open(revision.id) as reader:
            image = StoredImage(chunks, reader)
            bad = [index for index in places if not _made_sound(storage, revision, image, index, donor)]
        if bad:
            mark_damaged(repository, revision, [*revision.damaged, *bad])
            distrusted.append(revision.id)
    return distrusted


def _made_sound(
    storage: Storage, revision: Revision, image: StoredImage, index: int, donor: StoredImage | None
) -> bool:
    """Tell whether a chunk is sound, if need be after mending it from `donor`."""
    if damage_of(image, index) is None:
        return True
    identity = image.chunks[index]
    for place in donor.chunks.places({identity})[:1] if donor else []:
        if donor is not None and damage_of(donor, place) is None:
            storage.repair(revision.id, index, identity, donor.chunk(place))
            return damage_of(image, index) is None
    return False


def mark_damaged(repository: Repository, revision: Revision, chunks: Iterable[int]) -> Revision:
    """Distrust a revision for its damaged `chunks`."""
    changed = msgspec.structs.replace(revision, trust=Trust.DISTRUSTED, damaged=tuple(sorted(set(chunks))))
    repository.write_record(changed)
    return changed


def mark(repository: Repository, revision: Revision, trust: Trust) -> Revision:
    """Give a revision another state of trust, and forget which of its chunks were damaged."""
    changed = msgspec.structs.replace(revision, trust=trust, damaged=())
    repository.write_record(changed)
    return changed


def verify(repository: Repository, revision: Revision, clock: Callable[[], datetime], progress: Progress) -> Revision:
    """Read all of a revision and judge it; backups may run meanwhile, a purge may not."""
    with repository.image(revision) as image:
        found = damaged_chunks(image, image.chunks.data(), progress)
        with exclusive(repository.directory, BACKUP_LOCK, wait=True):
            return judge(repository, repository.storage(), repository.record(revision.id), found, clock)


def damaged_chunks(
    image: StoredImage, indexes: Iterable[int], progress: Progress
) -> list[tuple[int, ChunkDamageError]]:
    """Read the chunks `indexes` and return those that are damaged, with what is wrong."""

    def check(index: int) -> tuple[int, ChunkDamageError | None]:
        return index, damage_of(image, index)

    found = []
    for index, error in in_parallel(check, indexes):
        progress(image.chunks.length(index))
        if error is not None:
            found.append((index, error))
    return found


def judge(
    repository: Repository,
    storage: Storage,
    revision: Revision,
    found: Sequence[tuple[int, ChunkDamageError]],
    clock: Callable[[], datetime],
) -> Revision:
    """Draw the conclusions of having read all of a revision: it is verified, or it and its kin are distrusted."""
    if not found:
        log.info("revision %s is verified: all of it is sound", revision.id)
        return mark(repository, revision, Trust.VERIFIED)
    for _, error in found[: quarantine.MOST_FINDINGS]:
        report_damage(repository, error, clock(), mended=False)
    changed = mark_damaged(repository, revision, [index for index, _ in found])
    settle(repository, storage, {error.identity for _, error in found}, None)
    return changed


def recheck(repository: Repository, storage: Storage, clock: Callable[[], datetime], progress: Progress) -> None:
    """Look at one distrusted revision: the newest not looked at yet, else at what was damaged in the newest other one.

    A backup may have stored again what was damaged; then the revision is whole again. Says what is still wrong.
    """
    distrusted = [revision for revision in reversed(repository.history()) if revision.trust is Trust.DISTRUSTED]
    for revision in sorted(distrusted, key=lambda revision: not revision.suspect)[:1]:
        try:
            chunks = repository.read_map(revision)
        except DamageError as error:
            log.warning("%s", error)
            continue
        with storage.open(revision.id) as reader:
            image = StoredImage(chunks, reader)
            found = damaged_chunks(image, revision.damaged or chunks.data(), progress)
        judge(repository, storage, revision, found, clock)
    for revision in repository.history():
        if revision.damaged:
            log.warning(
                "revision %s is distrusted: %d of its chunks are damaged; 'backy reports list' tells more",
                revision.id,
                len(revision.damaged),
            )
