"""Deals with damage: keeps evidence, repairs what is damaged if possible, and distrusts revisions that refer to it.

A backup never builds upon a distrusted revision. A `Judge` reads such revisions, and they are trusted again if they are
sound.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from backy.api import Progress, Storage
from backy.errors import MOST_FINDINGS, BackyError, ChunkDamageError, DamageError, StorageError, warned
from backy.image.stored import ChunkMap, StoredImage
from backy.integrity import quarantine
from backy.integrity.quarantine import Finding
from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision, utc_now
from backy.system.parallel import in_parallel
from backy.system.progress import Steps, quiet
from backy.text.phrases import counted

log = logging.getLogger(__name__)
ChunkIds = Collection[bytes]


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
        where = quarantine.keep(repository.directory, finding, None, error.evidence)
        log.warning("%s; %s; %s", error, "repaired from the source" if repaired else "not repaired", where)
    if len(errors) > MOST_FINDINGS:
        more = counted(len(errors) - MOST_FINDINGS, "more chunk is", "more chunks are")
        log.warning("%s damaged, without evidence being kept", more)


def note_damage(repository: Repository, errors: Sequence[ChunkDamageError], clock: Clock) -> list[str]:
    """Report damaged chunks, and do as `repair_or_distrust` without a donor; the caller holds `.backup`."""
    report_damage(repository, errors, clock)
    return repair_or_distrust(repository, chunk_ids(errors))


def chunk_ids(errors: Iterable[ChunkDamageError]) -> set[bytes]:
    """Return the ids of damaged chunks and of the base chunks that make them damaged."""
    return {chunk_id for error in errors for chunk_id in (error.chunk_id, error.base) if chunk_id is not None}


def referring(repository: Repository, damaged: ChunkIds) -> tuple[str, ...]:
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
    act, storage = "verify" if verified else "repair", repository.store_of(revision)
    return repository.records.change(revision, act, distrusted=False, damaged=(), verified=verified, storage=storage)


def repair_or_distrust(repository: Repository, damaged: ChunkIds, donor: StoredImage | None = None) -> list[str]:
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


def _distrust_if_damaged(repository: Repository, revision: Revision, repairer: "Repairer", damaged: ChunkIds) -> bool:
    """Distrust a revision that refers to damage which can not be repaired; return whether it does."""
    # One revision that can not be read must not keep the others trusted.
    with _guarded(repository, revision):
        chunks = repository.records.read_map(revision)
        bad = repairer.still_damaged(revision, chunks, chunks.indexes(damaged))
        # A state that names damaged chunks counts as checked: one that is suspect is yet to be read as a whole.
        if bad and not revision.suspect:
            distrusted(repository, revision, [*revision.damaged, *bad])
        return bool(bad)
    return False


@contextmanager
def _guarded(repository: Repository, revision: Revision) -> Iterator[None]:
    """Log errors instead of raising them, unless the revision was forgotten meanwhile."""
    try:
        yield
    except Exception as error:  # also defects of plugins: a backup that is complete must not fail for an old revision
        if repository.records.has(revision):
            log.warning("revision %s can not be looked at for damage: %s", revision.id, error)
        log.debug("this is where it happened:", exc_info=error)


class Repairer:
    """Checks chunks that were damaged, and repairs them from a sound image, the donor, if it has their content."""

    def __init__(self, repository: Repository, damaged: ChunkIds = (), donor: StoredImage | None = None) -> None:
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
        what = f"chunk {chunk_id.hex()} of revision {revision_id} can not be repaired"
        with warned(log, what, (StorageError, OSError)):
            storage.repair(revision_id, index, chunk_id, self._donor.chunk(self._offered[chunk_id]))
        # Only reading proves that the storage has replaced what was damaged.
        return damage_of(image, index) is None


def distrust(
    repository: Repository,
    specification: str | None = None,
    *,
    first: date = date.min,
    last: date = date.max,
    dry_run: bool = False,
) -> list[Revision]:
    """Distrust revisions and return them as they are now; a `dry_run` returns them only.

    Args:
        repository: Has the revisions.
        specification: SPEC of one revision; None for all.
        first: Distrusts only what was made on this day (UTC) or later.
        last: Distrusts only what was made on this day (UTC) or earlier.
        dry_run: Whether nothing is changed.

    Raises:
        RepositoryBusyError: a backup is running.
        RevisionNotFoundError: there is no revision that SPEC stands for.
    """
    records = repository.records
    with repository.locked():
        # those in the trash as well: who gets one back has to know
        revisions = records.history(trash=True) if specification is None else [records.select(specification)]
        chosen = [one for one in revisions if first <= one.timestamp.astimezone(UTC).date() <= last]
        # Damage found earlier is dropped: a revision that names damaged chunks counts as checked.
        return chosen if dry_run else [distrusted(repository, one) for one in chosen]


@dataclass(frozen=True)
class Judge:
    """Reads stored revisions of a repository and marks them by what it finds."""

    repository: Repository
    clock: Clock = utc_now
    steps: Steps = quiet
    """Called as the reading of a revision begins."""
    events: Events = field(default_factory=Events)
    """The plugins to tell of damage."""

    def verify(self, revision: Revision) -> Revision:
        """Read all of a revision and return it as it is now, verified or distrusted. Backups can run meanwhile.

        Raises:
            DamageError: its chunk map is damaged.
            RevisionNotFoundError: it was forgotten meanwhile.
        """
        try:
            return self._verified(revision)
        except DamageError:
            # what somebody removes at this moment is missing, and not damaged
            self.repository.records.current(revision)
            raise

    def _verified(self, revision: Revision, *, again: bool = False) -> Revision:
        with self.repository.image(revision) as image:
            found = damaged_chunks(image, image.chunks.data(), self.steps("verify", image.size))
            with self.repository.locked(wait=True):
                current = self.repository.records.current(revision)
                suspects = {*found, *current.damaged, *_quarantined(self.repository, image)}
                # A backup may have repaired chunks since they were read, a conversion moved them, a scrub found others.
                with self.repository.open_image(current, image.chunks) as now:
                    bad = damaged_chunks(now, sorted(suspects), quiet("", 0))
                if again or (bad.keys() <= found.keys() and (revision.suspect or not current.suspect)):
                    return self._judge(current, bad)
        # What was doubted meanwhile may not be all that has happened to chunks that were sound when they were read.
        return self._verified(current, again=True)

    def _judge(self, revision: Revision, found: Mapping[int, ChunkDamageError]) -> Revision:
        """Mark a revision that was read as a whole, and all others that share its damage; return it as it is now."""
        if not found:
            log.info("revision %s is verified: all of it is sound", revision.id)
            return whole_again(self.repository, revision, self.clock())
        # First this one, which is no longer suspect: `repair_or_distrust` leaves suspect revisions to be read.
        changed = distrusted(self.repository, revision, found)
        revisions = tuple(note_damage(self.repository, list(found.values()), self.clock))
        self.events.tell("backy_damage_found", job=self.repository.job, revisions=revisions, chunks=len(found))
        return changed

    def recheck(self, history: Sequence[Revision] | None = None) -> None:
        """Read the newest suspect revision, and all chunks known to be damaged; log what is still wrong.

        Runs after a backup, which may have stored again what was damaged. The caller holds `.backup`. `history` has the
        revisions if it is known which ones are distrusted.
        """
        doubtful = self.repository.records.history() if history is None else history
        # One revision a night, or many suspect ones would keep the next jobs waiting.
        for revision in [revision for revision in doubtful if revision.suspect][-1:]:
            with _guarded(self.repository, revision), self.repository.open_image(revision) as image:
                self._judge(revision, damaged_chunks(image, image.chunks.data(), self.steps("recheck", image.size)))
                doubtful = self.repository.records.history()
        repairer = Repairer(self.repository)
        for revision in doubtful:
            if revision.damaged:
                with _guarded(self.repository, revision):
                    _look_at_damage(self.repository, repairer, revision)


def _quarantined(repository: Repository, image: StoredImage) -> list[int]:
    """Return the indexes of the chunks of which the quarantine has a finding: of suspect revisions no state has it."""
    names = {finding.chunk_id for finding in quarantine.findings(repository.directory)}
    return [index for index in image.chunks.data() if image.chunks[index].hex() in names] if names else []


def _look_at_damage(repository: Repository, repairer: Repairer, revision: Revision) -> None:
    """Trust a revision again if its damaged chunks are sound now; else log what is wrong."""
    chunks = repository.records.read_map(revision)
    bad = repairer.still_damaged(revision, chunks, revision.damaged)
    if not bad:
        whole_again(repository, revision)
        log.warning("revision %s is whole again: what was damaged is stored anew", revision.id)
        return
    distrusted(repository, revision, bad)
    are, first = counted(len(bad), "of its chunks is", "of its chunks are"), f"chunk {bad[0]} ({chunks[bad[0]].hex()})"
    text = "revision %s is distrusted: %s damaged, the first is %s; 'backy reports list' tells more"
    log.warning(text, revision.id, are, first)
