"""Distrusts stored revisions, reads them, and trusts them again if they are sound."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date

from backy.errors import ChunkDamageError, DamageError, RevisionNotFoundError
from backy.image.stored import StoredImage
from backy.integrity import damage, quarantine
from backy.plugins.events import Events
from backy.repository.attachments import problems as attachment_problems
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision, utc_now
from backy.system.progress import Steps, quiet
from backy.text.phrases import counted

log = logging.getLogger(__name__)


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
        # those in the trash as well: who gets one back has to know
        revisions = records.history(trash=True) if specification is None else [records.select(specification)]
        return [
            # Damage found earlier is dropped: a revision that names damaged chunks counts as checked.
            damage.distrusted(repository, revision)
            for revision in revisions
            if first <= revision.timestamp.astimezone(UTC).date() <= last
        ]


def verify_all(
    repository: Repository, specification: str | None, tell: Callable[[Revision | str], None], steps: Steps = quiet
) -> int:
    """Verify one revision, or all that are distrusted, tell hooks of damage, and return how many were read.

    Args:
        repository: Has the revisions.
        specification: SPEC of one revision; None for all that are distrusted.
        tell: Called with each revision as it is now, as soon as it is judged; with a text for operators in place of one
            that was forgotten meanwhile.
        steps: Called as each revision begins.

    Raises:
        DamageError: after all revisions are read, if any is damaged or wrong; the text names each of them.
        RevisionNotFoundError: there is no revision that SPEC stands for, or it was forgotten meanwhile.
    """
    if specification is None:
        revisions = [revision for revision in repository.records.history() if revision.state.distrusted]
    else:
        revisions = [repository.records.select(specification)]
    problems = []
    with Events.installed(repository.config.hooks) as events:
        judge = Judge(repository, steps=steps, events=events)
        for revision in revisions:
            try:
                judged = judge.verify(revision)
            except DamageError as error:
                problems.append(str(error))
            except RevisionNotFoundError as error:
                # One of many that is gone needs no verdict. The only one that was asked for is missed.
                if specification is not None:
                    raise
                tell(str(error))
            else:
                tell(judged)
                problems += attachment_problems(repository.records, judged)
                if judged.damaged:
                    problems.append(f"revision {judged.id} has {counted(len(judged.damaged), 'damaged chunk')}")
                # sound, but reading the storage proves nothing of what the source had
                elif judged.state.wrong:
                    problems.append(judged.doubt)
    if problems:
        raise DamageError(f"{'; '.join(problems)}; 'backy reports list' tells more")
    return len(revisions)


@dataclass(frozen=True)
class Judge:
    """Reads stored revisions of a repository and marks them by what it finds."""

    repository: Repository
    clock: Clock = utc_now
    steps: Steps = quiet
    """Called as the reading of a revision begins."""
    events: Events | None = None
    """The plugins to tell of damage; None tells nobody."""

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
            found = damage.damaged_chunks(image, image.chunks.data(), self.steps("verify", image.size))
            with self.repository.locked(wait=True):
                current = self.repository.records.current(revision)
                suspects = {*found, *current.damaged, *_quarantined(self.repository, image)}
                # A backup may have repaired chunks since they were read, a conversion moved them, a scrub found others.
                with self.repository.open_image(current, image.chunks) as now:
                    bad = damage.damaged_chunks(now, sorted(suspects), quiet("", 0))
                if again or (bad.keys() <= found.keys() and (revision.suspect or not current.suspect)):
                    return self._judge(current, bad)
        # What was doubted meanwhile may not be all that has happened to chunks that were sound when they were read.
        return self._verified(current, again=True)

    def _judge(self, revision: Revision, found: Mapping[int, ChunkDamageError]) -> Revision:
        """Mark a revision that was read as a whole, and all others that share its damage; return it as it is now."""
        if not found:
            log.info("revision %s is verified: all of it is sound", revision.id)
            return damage.whole_again(self.repository, revision, self.clock())
        errors = list(found.values())
        damage.report_damage(self.repository, errors, self.clock)
        # First this one, which is no longer suspect: `repair_or_distrust` leaves suspect revisions to be read.
        changed = damage.distrusted(self.repository, revision, found)
        revisions = tuple(damage.repair_or_distrust(self.repository, damage.chunk_ids(errors)))
        if self.events:
            told = {"job": self.repository.job, "revisions": revisions, "chunks": len(errors)}
            self.events.tell("backy_damage_found", **told)
        return changed

    def recheck(self, history: Sequence[Revision] | None = None) -> None:
        """Read the newest suspect revision, and all chunks known to be damaged; log what is still wrong.

        Runs after a backup, which may have stored again what was damaged. The caller holds `.backup`. `history` has the
        revisions if it is known which ones are distrusted.
        """
        doubtful = self.repository.records.history() if history is None else history
        # One revision a night, or many suspect ones would keep the next jobs waiting.
        for revision in [revision for revision in doubtful if revision.suspect][-1:]:
            with self._guarded(revision), self.repository.open_image(revision) as image:
                found = damage.damaged_chunks(image, image.chunks.data(), self.steps("recheck", image.size))
                self._judge(revision, found)
                doubtful = self.repository.records.history()
        repairer = damage.Repairer(self.repository)
        for revision in doubtful:
            if revision.damaged:
                with self._guarded(revision):
                    _look_at_damage(self.repository, repairer, revision)

    @contextmanager
    def _guarded(self, revision: Revision) -> Iterator[None]:
        """Log errors instead of raising them."""
        try:
            yield
        except Exception as error:  # also defects of plugins: the backup is complete, an old revision must not fail it
            if self.repository.records.has(revision):
                log.warning("the distrusted revision %s can not be looked at: %s", revision.id, error)
            log.debug("this is where it happened:", exc_info=error)


def _quarantined(repository: Repository, image: StoredImage) -> list[int]:
    """Return the indexes of the chunks of which the quarantine has a finding: of suspect revisions no state has it."""
    names = {finding.chunk_id for finding in quarantine.findings(repository.directory)}
    return [index for index in image.chunks.data() if image.chunks[index].hex() in names] if names else []


def _look_at_damage(repository: Repository, repairer: damage.Repairer, revision: Revision) -> None:
    """Trust a revision again if its damaged chunks are sound now; else log what is wrong."""
    chunks = repository.records.read_map(revision)
    bad = repairer.still_damaged(revision, chunks, revision.damaged)
    if not bad:
        damage.whole_again(repository, revision)
        log.warning("revision %s is whole again: what was damaged is stored anew", revision.id)
        return
    damage.distrusted(repository, revision, bad)
    log.warning(
        "revision %s is distrusted: %s damaged, the first is chunk %d (%s); 'backy reports list' tells more",
        revision.id,
        counted(len(bad), "of its chunks is", "of its chunks are"),
        bad[0],
        chunks[bad[0]].hex(),
    )
