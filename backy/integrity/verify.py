"""What is thought of the stored revisions: doubting them, reading them, and what follows from that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import msgspec

from backy.api import Progress
from backy.errors import ChunkDamageError, DamageError, RevisionNotFoundError
from backy.integrity.damage import Mender, chunk_ids, damaged_chunks, mark_damaged, report_damage, settle
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Trust, utc_now
from backy.system.locking import BACKUP_LOCK, exclusive
from backy.system.progress import Steps, quiet
from backy.text.phrases import counted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What came of reading one revision."""

    revision: Revision
    """Its record as it is now; as it was if somebody forgot it."""
    forgotten: str | None = None
    """The text for operators if somebody forgot it meanwhile; else None."""


def distrust(
    repository: Repository, specification: str | None = None, *, first: date = date.min, last: date = date.max
) -> list[Revision]:
    """Mark revisions as distrusted and return their new records.

    Chooses the one that SPEC stands for, or all if it is None; of these, those made on the days from `first` to `last`
    (UTC, both included).

    Raises:
        RepositoryBusyError: a backup is running.
        RevisionNotFoundError: there is no revision that SPEC stands for.
    """
    with exclusive(repository.directory, BACKUP_LOCK):
        revisions = (
            repository.records.history() if specification is None else [repository.records.select(specification)]
        )
        return [
            mark(repository, revision, Trust.DISTRUSTED)
            for revision in revisions
            if first <= revision.timestamp.astimezone(UTC).date() <= last
        ]


def mark(repository: Repository, revision: Revision, trust: Trust) -> Revision:
    """Give a revision another state of trust, and forget which of its chunks were damaged.

    The caller holds the lock `.backup`.
    """
    changed = msgspec.structs.replace(revision, trust=trust, damaged=())
    if changed != revision:
        repository.records.write(changed)
    return changed


def verify_all(
    repository: Repository,
    specification: str | None,
    tell: Callable[[Verdict], None],
    clock: Callable[[], datetime] = utc_now,
    steps: Steps = quiet,
) -> int:
    """Verify the revision that SPEC stands for, or all distrusted ones if it is None; return how many these are.

    Calls `tell` as soon as a revision is judged. One that is damaged keeps no other from being read.

    Raises:
        DamageError: at the end, if anything is damaged; the text names every revision that is.
        RevisionNotFoundError: there is no revision that SPEC stands for, or somebody forgot it meanwhile.
    """
    if specification is None:
        revisions = [revision for revision in repository.records.history() if revision.trust is Trust.DISTRUSTED]
    else:
        revisions = [repository.records.select(specification)]
    problems = []
    for revision in revisions:
        try:
            judged = verify(repository, revision, clock, steps("verify", revision.size))
        except DamageError as error:
            problems.append(str(error))
            continue
        except RevisionNotFoundError as error:
            # whoever asked for this one has to know; of many, one that is gone needs no verdict any more
            if specification is not None:
                raise
            tell(Verdict(revision, forgotten=str(error)))
            continue
        tell(Verdict(judged))
        if judged.damaged:
            problems.append(f"revision {judged.id} has {counted(len(judged.damaged), 'damaged chunk')}")
    if problems:
        raise DamageError(f"{'; '.join(problems)}; 'backy reports list' tells more")
    return len(revisions)


def verify(repository: Repository, revision: Revision, clock: Callable[[], datetime], progress: Progress) -> Revision:
    """Read all of a revision and judge it; backups may run meanwhile, a purge may not.

    Raises:
        DamageError: its chunk map is damaged.
        RevisionNotFoundError: somebody forgot it meanwhile.
    """
    with repository.image(revision) as image:
        found = damaged_chunks(image, image.chunks.data(), progress)
        with exclusive(repository.directory, BACKUP_LOCK, wait=True):
            current = repository.records.current(revision)
            # a backup may have mended meanwhile what was damaged, so those chunks are looked at again
            return _judge(repository, current, _look(repository, current, found), clock)


def _look(
    repository: Repository, revision: Revision, found: Sequence[tuple[int, ChunkDamageError]]
) -> list[tuple[int, ChunkDamageError]]:
    """Return which of the chunks found damaged are so still."""
    if not found:
        return []
    with repository.open_image(revision) as image:
        return damaged_chunks(image, [index for index, _ in found], quiet("", 0))


def _judge(
    repository: Repository,
    revision: Revision,
    found: Sequence[tuple[int, ChunkDamageError]],
    clock: Callable[[], datetime],
) -> Revision:
    """Draw the conclusions of having read all of a revision: it is verified, or it and its kin are distrusted."""
    if not found:
        log.info("revision %s is verified: all of it is sound", revision.id)
        return mark(repository, revision, Trust.VERIFIED)
    errors = [error for _, error in found]
    report_damage(repository, errors, clock, mended=False)
    changed = mark_damaged(repository, revision, [index for index, _ in found])
    settle(repository, chunk_ids(errors), None)
    return changed


def recheck(repository: Repository, clock: Callable[[], datetime], steps: Steps) -> None:
    """Read all of the newest revision that is doubted as a whole, and look again at every chunk known to be damaged.

    The backup just made may have stored anew what was damaged; then a revision is whole again. Says what is still
    wrong. That backup is complete: nothing that is wrong with older revisions fails it.
    """
    for revision in [revision for revision in repository.records.history() if revision.suspect][-1:]:
        _guarded(revision, lambda found: _read_all(repository, found, clock, steps))
    mender = Mender(repository)
    for revision in repository.records.history():
        if revision.damaged:
            _guarded(revision, lambda found: _look_at_damage(repository, mender, found))


def _guarded(revision: Revision, look: Callable[[Revision], object]) -> None:
    try:
        look(revision)
    except Exception as error:  # whatever a plugin does: the new revision is good
        log.warning("the distrusted revision %s can not be looked at: %s", revision.id, error)
        log.debug("this is where it happened:", exc_info=error)


def _read_all(repository: Repository, revision: Revision, clock: Callable[[], datetime], steps: Steps) -> None:
    with repository.open_image(revision) as image:
        found = damaged_chunks(image, image.chunks.data(), steps("recheck", image.size))
    _judge(repository, revision, found, clock)


def _look_at_damage(repository: Repository, mender: Mender, revision: Revision) -> None:
    """Trust a revision again if what was damaged in it is sound; else say what is wrong."""
    chunks = repository.records.read_map(revision)
    bad = mender.damaged(revision, chunks, revision.damaged)
    if not bad:
        log.warning("revision %s is whole again: what was damaged is stored anew", revision.id)
        mark(repository, revision, Trust.TRUSTED)
        return
    mark_damaged(repository, revision, bad)
    log.warning(
        "revision %s is distrusted: %s damaged, the first is chunk %d (%s); 'backy reports list' "
        "tells more, 'backy forget -r %s' gives the revision up",
        revision.id,
        counted(len(bad), "of its chunks is", "of its chunks are"),
        bad[0],
        chunks[bad[0]].hex(),
        revision.id,
    )
