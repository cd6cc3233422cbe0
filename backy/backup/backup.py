"""One backup, from the locks to the complete revision.

The order makes it safe: chunks are durable before the map that names them, the map before the record that makes the
revision complete, and the record before the source may drop the snapshot of the parent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import shortuuid

from backy.api import AssessedSnapshot, Snapshot, Source, Statistics, Stored, Verification, Verifier
from backy.backup.findings import Findings, recorded
from backy.backup.transfer import Transferred, Unhinted, transfer
from backy.durable import sync_file_system_of
from backy.errors import HintError, SourceBusyError, VerificationError
from backy.image.chunkmap import ChunkMap
from backy.image.stored import StoredImage
from backy.integrity.damage import chunk_ids, referring, repair_or_distrust, report_damage
from backy.integrity.verify import recheck
from backy.plugins.broken import error_line
from backy.plugins.events import Events
from backy.repository.cleanup import clean_up
from backy.repository.live import LiveChunks, boot_id, first_sound, reliable
from backy.repository.repository import Repository
from backy.repository.revision import Revision, utc_now
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, exclusive, shared
from backy.system.progress import Steps, quiet

log = logging.getLogger(__name__)


@dataclass
class Backup:
    """A backup of one repository."""

    repository: Repository
    tags: tuple[str, ...]
    events: Events | None = None
    """The plugins to tell and to ask; None stands for the installed ones."""
    clock: Callable[[], datetime] = utc_now
    steps: Steps = quiet
    source: Source | None = None
    """The source of the image; None for the job's own."""
    snapshot: str | None = None
    """Name of the source's snapshot for the record."""
    revision_id: str | None = None
    """Id of the new revision; None for a random one."""
    timestamp: datetime | None = None
    """When the image was taken, if that was not now."""

    def run(self) -> Revision:
        """Make a new revision and return its record.

        Raises:
            RepositoryBusyError, SourceBusyError: another backup is running.
            VerificationError: the stored image differs from the source; the new revision is removed.
            BackyError, OSError: anything else; the new revision is removed, the older ones are unchanged.
        """
        events = self.events or Events.installed(self.repository.config.hooks)
        directory = self.repository.directory
        # The events outermost: their plugins are told when the locks are released.
        with events, exclusive(directory, BACKUP_LOCK), shared(directory, PURGE_LOCK):
            self._events = events
            try:
                return self._locked()
            except SourceBusyError:
                raise  # no failure: the same backup may succeed later
            except Exception as error:
                events.tell("backy_backup_failed", job=self.repository.job, error=error_line(error))
                raise

    def _locked(self) -> Revision:
        source = self.source or self.repository.source()
        # made here so that a wrong section fails before anything begins
        self.repository.storage()
        self._events.ask("backy_backup_starting", job=self.repository.job, tags=self.tags)
        try:
            revision = self._attempt(source, hinted=True)
        except HintError as error:
            log.warning("%s; the source may have told too little of what changed, so now all of it is read", error)
            revision = self._attempt(source, hinted=False)
        self._events.tell("backy_backup_finished", job=self.repository.job, revision=revision.info)
        recheck(self.repository, self.clock, self.steps)
        return revision

    def _attempt(self, source: Source, *, hinted: bool) -> Revision:
        """Make a revision; read only the changes that the source reports if `hinted` is true, else all of it."""
        history = clean_up(self.repository)
        candidates = self._candidates(history)
        parent, parent_map = first_sound(self.repository, reversed(candidates)) or (None, None)
        revision = self._begin(history, parent)
        parent_id = parent.id if parent and hinted else None
        try:
            with source.snapshot(revision.id, parent_id) as snapshot:
                making = _Making(self, self._events, revision, snapshot, hinted=parent_id is not None)
                complete = making.run(self.repository.verifiers(source.verifier), candidates, parent_map)
                self.repository.records.write(complete)
                revision = complete
                self.repository.link_last()
        except BaseException as error:
            if not revision.complete:
                self.repository.remove(revision.id)
                raise
            # the revision is complete: a failing link, or source that cleans up, is no reason to lose it
            log.error("%s is complete, but what follows a backup failed: %s", revision.id, error)  # noqa: TRY400  # an operator gets one line, no traceback
        return revision

    def _candidates(self, history: list[Revision]) -> list[Revision]:
        """Return the revisions that may be built upon: the reliable ones in the job's storage."""
        for revision in history:
            if revision.suspect:
                # until it is read, nobody knows which chunks are damaged, and other revisions may share them
                log.warning("revision %s is distrusted: this backup is a full one and stores all anew", revision.id)
                return []
        storage = self.repository.config.storage.type
        return [revision for revision in history if revision.storage == storage and reliable(revision)]

    def _begin(self, history: list[Revision], parent: Revision | None) -> Revision:
        """Write the record of an incomplete revision."""
        now = self.timestamp or self.clock()
        # times have to ascend even if the clock does not: they are the order of the revisions
        if self.timestamp is None and history and history[-1].timestamp >= now:
            log.warning("the clock is behind the newest revision of %s; is it set right?", history[-1].timestamp)
            now = history[-1].timestamp + timedelta(microseconds=1)
        revision = Revision(
            id=self.revision_id or shortuuid.uuid(),
            timestamp=now,
            tags=self.tags,
            parent=parent.id if parent else None,
            storage=self.repository.config.storage.type,
            size=0,
            snapshot=self.snapshot,
        )
        self.repository.records.write(revision)
        return revision


class _Making:
    """A revision between its snapshot and its complete record."""

    def __init__(self, backup: Backup, events: Events, revision: Revision, snapshot: Snapshot, *, hinted: bool) -> None:
        self._backup = backup
        self._events = events
        self._repository = backup.repository
        consistent = not isinstance(snapshot, AssessedSnapshot) or snapshot.consistent
        self._revision = msgspec.structs.replace(revision, size=snapshot.size, consistent=consistent)
        self._snapshot = snapshot if hinted else Unhinted(snapshot)

    def run(self, verifiers: Sequence[Verifier], candidates: list[Revision], parent: ChunkMap | None) -> Revision:
        """Store and verify the snapshot; return the complete record, which the caller writes.

        Args:
            verifiers: Compare what is stored with the snapshot, one after the other.
            candidates: Revisions whose chunks need not be stored again.
            parent: Map of the parent, if there is one.
        """
        started = self._backup.clock()
        done, stored = self._store(candidates, parent)
        digest = self._repository.records.write_map(self._revision.id, done.chunks)
        with self._repository.open_image(self._revision, done.chunks) as image:
            verifications, damaged = self._verify(verifiers, image, done, stored)
            complete = msgspec.structs.replace(
                self._revision,
                boot=None if stored.durable else boot_id(),
                map_digest=digest,
                verifications=tuple(verifications),
                statistics=self._statistics(started, done, stored),
            )
            # the fresh image has the content of the source: older revisions are repaired from it
            left = repair_or_distrust(self._repository, damaged, image)
            if damaged:
                event = "backy_damage_found" if left else "backy_damage_repaired"
                revisions = tuple(left) or referring(self._repository, damaged)
                self._tell(event, revisions=revisions, chunks=len(damaged))
        return complete

    def _tell(self, event: str, **arguments: object) -> None:
        self._events.tell(event, job=self._repository.job, **arguments)

    def _store(self, candidates: list[Revision], parent: ChunkMap | None) -> tuple[Transferred, Stored]:
        size = self._snapshot.size
        live = LiveChunks(self._repository.records, candidates)
        storage = self._repository.storage()
        with storage.create(self._revision.id, self._revision.parent, size, live) as writer:
            done = transfer(self._snapshot, writer, parent, self._backup.steps("backup", size))
            stored = writer.commit()
        if stored.durable:
            self._sync_earlier()
        return done, stored

    def _verify(
        self, verifiers: Sequence[Verifier], image: StoredImage, done: Transferred, stored: Stored
    ) -> tuple[list[Verification], set[bytes]]:
        """Compare the stored image with the snapshot; return the reports and the ids of chunks that were damaged."""
        backup = self._backup
        report_damage(self._repository, stored.damaged, backup.clock)
        damaged = chunk_ids(stored.damaged)
        verifications = []
        for verifier in verifiers:
            # of its own for each, because two may find the same chunk
            findings = Findings(self._repository, self._revision.id, image, backup.clock)
            report = verifier.verify(self._snapshot, image, findings.add, backup.steps("verify", image.size))
            damaged |= findings.damaged
            if findings.failures:
                repair_or_distrust(self._repository, damaged)
                self._tell("backy_verification_failed", revision_id=self._revision.id, mismatches=findings.failures)
            # the next verifier is not asked about an image that is wrong
            findings.judge(HintError if done.hinted else VerificationError)
            verifications.append(recorded(report))
        return verifications, damaged

    def _sync_earlier(self) -> None:
        """Bring chunks to the disk that this revision may share with earlier ones that were not synced."""
        now = boot_id()
        if any(earlier.boot == now for earlier in self._repository.records.survey()[0]):
            sync_file_system_of(self._repository.directory)

    def _statistics(self, started: datetime, done: Transferred, stored: Stored) -> Statistics:
        return Statistics(
            # not below 0: somebody may have set the clock back
            duration=max((self._backup.clock() - started).total_seconds(), 0.0),
            bytes_read=done.bytes_read,
            bytes_written=done.bytes_written,
            bytes_stored=stored.bytes,
        )
