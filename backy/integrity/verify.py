"""Distrusts stored revisions, reads them, and trusts them again if they are sound."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime

from backy.api import Progress
from backy.errors import ChunkDamageError, DamageError, RevisionNotFoundError
from backy.integrity.damage import (
    Repairer,
    chunk_ids,
    damaged_chunks,
    distrusted,
    repair_or_distrust,
    report_damage,
    whole_again,
)
from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.repository.revision import Revision, utc_now
from backy.system.progress import Steps, quiet
from backy.text.phrases import counted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """The result of verifying one revision."""

    revision: Revision
    """The revision as it is now, or as it was if the revision was forgotten meanwhile."""
    forgotten: str | None = None
    """The text for operators if the revision was forgotten meanwhile; else None."""


def distrust(
    repository: Repository, specification: str | None = None, *, first: date = date.min, last: date = date.max
) -> list[Revision]:
    """Distrust revisions and return them as they are now.

    Args:
        repository: Has the revisions.
        specification: SPEC of one revision; None for all.
        first: Distrusts only what was made on this day (UTC) or later.
        last: Distrusts only what was made on this day (UTC) or earlier.

    Raises:
        RepositoryBusyError: a backup is running.
        RevisionNotFoundError: there is no revision that SPEC stands for.
    """
    records = repository.records
    with repository.locked():
        revisions = records.history() if specification is None else [records.select(specification)]
        return [
            # Damage found earlier is dropped: a revision that names damaged chunks counts as checked.
            distrusted(repository, revision)
            for revision in revisions
            if first <= revision.timestamp.astimezone(UTC).date() <= last
        ]


def verify_all(
    repository: Repository,
    specification: str | None,
    tell: Callable[[Verdict], None],
    clock: Callable[[], datetime] = utc_now,
    steps: Steps = quiet,
) -> int:
    """Verify one revision, or all that are distrusted, tell hooks of damage, and return how many were read.

    Args:
        repository: Has the revisions.
        specification: SPEC of one revision; None for all that are distrusted.
        tell: Called with each verdict as soon as it is known.
        clock: Returns the time.
        steps: Called as each revision begins.

    Raises:
        DamageError: after all revisions are read, if any is damaged; the text names each of them.
        RevisionNotFoundError: there is no revision that SPEC stands for, or it was forgotten meanwhile.
    """
    if specification is None:
        revisions = [revision for revision in repository.records.history() if revision.state.distrusted]
    else:
        revisions = [repository.records.select(specification)]
    problems = []
    with Events.installed(repository.config.hooks) as events:
        for revision in revisions:
            try:
                judged = verify(repository, revision, clock, steps("verify", revision.size), events)
            except DamageError as error:
                problems.append(str(error))
            except RevisionNotFoundError as error:
                # One of many that is gone needs no verdict. The only one that was asked for is missed.
                if specification is not None:
                    raise
                tell(Verdict(revision, forgotten=str(error)))
            else:
                tell(Verdict(judged))
                if judged.damaged:
                    problems.append(f"revision {judged.id} has {counted(len(judged.damaged), 'damaged chunk')}")
    if problems:
        raise DamageError(f"{'; '.join(problems)}; 'backy reports list' tells more")
    return len(revisions)


def verify(
    repository: Repository,
    revision: Revision,
    clock: Callable[[], datetime],
    progress: Progress,
    events: Events | None = None,
) -> Revision:
    """Read all of a revision and return it as it is now, verified or distrusted. Backups can run meanwhile.

    Raises:
        DamageError: its chunk map is damaged.
        RevisionNotFoundError: it was forgotten meanwhile.
    """
    with repository.image(revision) as image:
        found = damaged_chunks(image, image.chunks.data(), progress)
        with repository.locked(wait=True):
            current = repository.records.current(revision)
            if found:
                # A backup may have repaired chunks since they were read, or a conversion moved them.
                with repository.open_image(current) as again:
                    found = damaged_chunks(again, found, quiet("", 0))
            return _judge(repository, current, found, clock, events)


def _judge(
    repository: Repository,
    revision: Revision,
    found: Mapping[int, ChunkDamageError],
    clock: Callable[[], datetime],
    events: Events | None,
) -> Revision:
    """Mark a revision that was read as a whole, and all others that share its damage; return it as it is now."""
    if not found:
        log.info("revision %s is verified: all of it is sound", revision.id)
        return whole_again(repository, revision, clock())
    errors = list(found.values())
    report_damage(repository, errors, clock)
    # First this one, which is no longer suspect: `repair_or_distrust` leaves suspect revisions to be read.
    changed = distrusted(repository, revision, found)
    revisions = tuple(repair_or_distrust(repository, chunk_ids(errors)))
    if events:
        events.tell("backy_damage_found", job=repository.job, revisions=revisions, chunks=len(errors))
    return changed


def recheck(repository: Repository, clock: Callable[[], datetime], steps: Steps, events: Events | None = None) -> None:
    """Read the newest suspect revision, and all chunks known to be damaged; log what is still wrong.

    Runs after a backup, which may have stored again what was damaged. The caller holds `.backup`.
    """
    # One revision a night, or many suspect ones would keep the next jobs waiting.
    for revision in [revision for revision in repository.records.history() if revision.suspect][-1:]:
        with _guarded(revision), repository.open_image(revision) as image:
            found = damaged_chunks(image, image.chunks.data(), steps("recheck", image.size))
            _judge(repository, revision, found, clock, events)
    repairer = Repairer(repository)
    for revision in repository.records.history():
        if revision.damaged:
            with _guarded(revision):
                _look_at_damage(repository, repairer, revision)


@contextmanager
def _guarded(revision: Revision) -> Iterator[None]:
    """Log errors instead of raising them."""
    try:
        yield
    except Exception as error:  # also defects of plugins: the backup is complete, an old revision must not fail it
        log.warning("the distrusted revision %s can not be looked at: %s", revision.id, error)
        log.debug("this is where it happened:", exc_info=error)


def _look_at_damage(repository: Repository, repairer: Repairer, revision: Revision) -> None:
    """Trust a revision again if its damaged chunks are sound now; else log what is wrong."""
    chunks = repository.records.read_map(revision)
    bad = repairer.still_damaged(revision, chunks, revision.damaged)
    if bad:
        distrusted(repository, revision, bad)
    else:
        whole_again(repository, revision)
        log.warning("revision %s is whole again: what was damaged is stored anew", revision.id)
        return
    log.warning(
        "revision %s is distrusted: %s damaged, the first is chunk %d (%s); 'backy reports list' "
        "tells more, 'backy forget -r %s' gives the revision up",
        revision.id,
        counted(len(bad), "of its chunks is", "of its chunks are"),
        bad[0],
        chunks[bad[0]].hex(),
        revision.id,
    )
