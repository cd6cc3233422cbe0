"""One backup, from the locks to the complete revision.

The order is the safety argument: chunks are durable before the map that names them, the map before the record that
makes the revision complete, and the record before the snapshot of the revision before it may go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec
import shortuuid

from backy.api import AssessedSnapshot, Report, Snapshot, Source, Storage, Stored, Verifier
from backy.backup.findings import Findings
from backy.backup.transfer import Transferred, Unhinted, transfer
from backy.durable import sync_file_system_of
from backy.errors import DamageError, HintError, SourceBusyError, VerificationError
from backy.image.chunkmap import ChunkMap
from backy.image.stored import StoredImage
from backy.integrity.damage import chunk_ids, report_damage, settle
from backy.integrity.verify import recheck
from backy.plugins.events import Events
from backy.repository.cleanup import tidy
from backy.repository.referenced import Referenced, boot_id, relied_upon
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Statistics, Verification, utc_now
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, exclusive, shared
from backy.system.progress import Steps, quiet

log = logging.getLogger(__name__)


@dataclass
class Backup:
    """A backup of one repository; `run` does it."""

    repository: Repository
    tags: tuple[str, ...]
    events: Events = field(default_factory=Events.installed)
    clock: Callable[[], datetime] = utc_now
    steps: Steps = quiet
    source: Source | None = None
    """Where the image comes from; None stands for the job's source."""
    snapshot: str | None = None
    """Name of the source's snapshot that the record shall tell."""

    def run(self) -> Revision:
        """Make a new revision and return its record.

        Raises:
            RepositoryBusyError, SourceBusyError: another backup is running.
            VerificationError: what was stored is not what the source has; the new revision is removed.
            BackyError, OSError: anything else; the new revision is removed, the older ones are as they were.
        """
        directory = self.repository.directory
        with exclusive(directory, BACKUP_LOCK), shared(directory, PURGE_LOCK):
            try:
                return self._locked()
            except SourceBusyError:
                raise
            except Exception as error:
                self.events.backup_failed(self.repository.job, str(error))
                raise

    def _locked(self) -> Revision:
        source = self.source or self.repository.source()
        storage = self.repository.storage()
        self.events.backup_starting(self.repository.job, self.tags)
        try:
            revision = self._attempt(source, storage)
        except HintError as error:
            log.warning("%s; the source may have told too little of what changed, so now all of it is read", error)
            revision = self._attempt(source, storage, hinted=False)
        self.events.backup_finished(self.repository.job, revision.id)
        recheck(self.repository, self.clock, self.steps)
        return revision

    def _attempt(self, source: Source, storage: Storage, *, hinted: bool = True) -> Revision:
        """Make a revision, `hinted` by what the source says has changed, or of all that it has."""
        history = tidy(self.repository)
        trusted = self._trusted(history)
        parent, parent_map = self._parent(trusted)
        revision = self._begin(history, parent)
        parent_id = parent.id if parent and hinted else None
        recorded = False
        try:
            with source.snapshot(revision.id, parent_id) as snapshot:
                making = _Making(self, revision, snapshot, storage, hinted=parent_id is not None)
                revision = making.run(self.repository.verifier(source.verifier), trusted, parent_map)
                self.repository.records.write(revision)
                recorded = True
                self.repository.link_last()
        except BaseException as error:
            if not recorded:
                self.repository.remove(revision.id)
                raise
            # the revision is good: what could not be linked or tidied up afterwards is no reason to lose it
            log.error("%s is complete, but what follows a backup failed: %s", revision.id, error)  # noqa: TRY400  # an operator gets one line, no traceback
        return revision

    def _trusted(self, history: list[Revision]) -> list[Revision]:
        """Return what may be built upon: nothing at all while a revision is distrusted and was not looked at since."""
        for revision in history:
            if revision.suspect:
                log.warning("revision %s is distrusted: this backup is a full one and stores all anew", revision.id)
                return []
        return [revision for revision in history if relied_upon(revision)]

    def _parent(self, trusted: list[Revision]) -> tuple[Revision | None, ChunkMap | None]:
        """Choose the revision that source and storage build upon: the newest one that seems to be whole, or none."""
        storage = self.repository.config.storage.type
        for revision in reversed(trusted):
            try:
                if revision.storage == storage:
                    self.repository.raw_path(revision)
                    return revision, self.repository.records.read_map(revision)
            except DamageError as error:
                log.warning("%s; it is not built upon", error)
        return None, None

    def _begin(self, history: list[Revision], parent: Revision | None) -> Revision:
        """Write the record of an incomplete revision."""
        now = self.clock()
        if history and history[-1].timestamp >= now:
            log.warning("the clock is behind the newest revision of %s; is it set right?", history[-1].timestamp)
            now = history[-1].timestamp + timedelta(microseconds=1)
        revision = Revision(
            id=shortuuid.uuid(),
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

    def __init__(
        self, backup: Backup, revision: Revision, snapshot: Snapshot, storage: Storage, *, hinted: bool
    ) -> None:
        self._backup = backup
        self._repository = backup.repository
        consistent = not isinstance(snapshot, AssessedSnapshot) or snapshot.consistent
        self._revision = msgspec.structs.replace(revision, size=snapshot.size, consistent=consistent)
        self._snapshot = snapshot if hinted else Unhinted(snapshot)
        self._storage = storage

    def run(self, verifier: Verifier, trusted: list[Revision], parent: ChunkMap | None) -> Revision:
        """Store and verify the snapshot; return the complete record, which is still to be written."""
        started = self._backup.clock()
        done, stored = self._store(trusted, parent)
        digest = self._repository.records.write_map(self._revision.id, done.chunks)
        with self._repository.open_image(self._revision, done.chunks) as image:
            report, damaged = self._verify(verifier, image, done, stored)
            complete = msgspec.structs.replace(
                self._revision,
                boot=None if stored.durable else boot_id(),
                map_digest=digest,
                verification=Verification(report.verifier, report.checked, report.total, report.out_of_time),
                statistics=self._statistics(started, done, stored),
            )
            settle(self._repository, damaged, image)
        return complete

    def _store(self, trusted: list[Revision], parent: ChunkMap | None) -> tuple[Transferred, Stored]:
        size = self._snapshot.size
        stored_alike = [revision for revision in trusted if revision.storage == self._revision.storage]
        referenced = Referenced(self._repository.records, stored_alike)
        with self._storage.create(self._revision.id, self._revision.parent, size, referenced) as writer:
            done = transfer(self._snapshot, writer, parent, self._backup.steps("backup", size))
            stored = writer.commit()
        if stored.durable:
            self._sync_earlier()
        return done, stored

    def _verify(
        self, verifier: Verifier, image: StoredImage, done: Transferred, stored: Stored
    ) -> tuple[Report, set[bytes]]:
        """Compare what was stored with the snapshot; return the report and the ids of chunks that were damaged."""
        backup = self._backup
        report_damage(self._repository, stored.damaged, backup.clock, mended=False)
        damaged = chunk_ids(stored.damaged)
        findings = Findings(self._repository, self._storage, self._revision.id, image, backup.clock)
        report = verifier.verify(self._snapshot, image, findings.add, backup.steps("verify", image.size))
        damaged |= findings.damaged
        if findings.failures:
            settle(self._repository, damaged, None)
            backup.events.verification_failed(self._repository.job, self._revision.id, findings.failures)
        findings.judge(HintError if done.hinted else VerificationError)
        return report, damaged

    def _sync_earlier(self) -> None:
        """Bring to the disk what this revision may share with earlier ones that were not synced themselves."""
        now = boot_id()
        if any(earlier.boot == now for earlier in self._repository.records.survey()[0]):
            sync_file_system_of(self._repository.directory)

    def _statistics(self, started: datetime, done: Transferred, stored: Stored) -> Statistics:
        return Statistics(
            duration=max((self._backup.clock() - started).total_seconds(), 0.0),
            bytes_read=done.bytes_read,
            bytes_written=done.bytes_written,
            bytes_stored=stored.bytes,
        )
