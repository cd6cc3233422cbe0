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

from backy import quarantine
from backy.api import Mismatch, Progress, Snapshot, Source, Storage, Stored
from backy.chunkmap import ChunkMap
from backy.durable import TEMPORARY_SUFFIX, sync_file_system_of
from backy.errors import DamageError, VerificationError
from backy.image import StoredImage
from backy.locking import BACKUP_LOCK, PURGE_LOCK, exclusive, shared
from backy.plugins.events import Events
from backy.referenced import Referenced, boot_id, relied_upon
from backy.repository import Repository
from backy.revision import Revision, Statistics, Verification, utc_now
from backy.transfer import Transferred, transfer

log = logging.getLogger(__name__)
Steps = Callable[[str, int], Progress]
"""Called when a step begins, with its name and how many bytes it will deal with; returns what to tell them to."""


def quiet(step: str, total: int) -> Progress:
    """Show nothing."""
    return lambda _length: None


@dataclass
class Backup:
    """A backup of one repository; `run` does it."""

    repository: Repository
    tags: tuple[str, ...]
    events: Events = field(default_factory=Events.installed)
    clock: Callable[[], datetime] = utc_now
    steps: Steps = quiet

    def run(self) -> Revision:
        """Make a new revision and return its record.

        Raises:
            RepositoryBusyError: another backup is running.
            VerificationError: what was stored is not what the source has; the new revision is removed.
            BackyError, OSError: anything else; the new revision is removed, the older ones are as they were.
        """
        directory = self.repository.directory
        with exclusive(directory, BACKUP_LOCK), shared(directory, PURGE_LOCK):
            try:
                return self._locked()
            except Exception as error:
                self.events.backup_failed(self.repository.job, str(error))
                raise

    def _locked(self) -> Revision:
        source = self.repository.source()
        storage = self.repository.storage()
        self.events.backup_starting(self.repository.job, self.tags)
        history = self._tidy_history(storage)
        parent, parent_map = self._parent(history)
        revision = self._begin(history, parent)
        recorded = False
        try:
            with source.snapshot(revision.id, parent.id if parent else None) as snapshot:
                revision = msgspec.structs.replace(revision, size=snapshot.size)
                revision = self._fill(revision, snapshot, source, storage, parent_map)
                self.repository.write_record(revision)
                recorded = True
                self.repository.link_last(storage)
        except BaseException as error:
            if not recorded:
                self.repository.remove(revision.id, storage)
                raise
            # the revision is good: what could not be linked or tidied up afterwards is no reason to lose it
            log.error("%s is complete, but what follows a backup failed: %s", revision.id, error)  # noqa: TRY400
        self.events.backup_finished(self.repository.job, revision.id)
        return revision

    def _tidy_history(self, storage: Storage) -> list[Revision]:
        """Remove what earlier backups did not finish; return the complete revisions."""
        sound, damaged = self.repository.survey()
        for error in damaged:
            log.warning("%s; 'backy forget -r ID' removes it", error)
        for revision in sound:
            if not revision.complete:
                log.info("removing the incomplete revision %s", revision.id)
                self.repository.remove(revision.id, storage)
        known = {revision.id for revision in sound if revision.complete}
        known |= {path.name.removesuffix(".rev") for path in self.repository.directory.glob("*.rev")}
        for path in [*self.repository.maps(), *self.repository.directory.glob(f".*{TEMPORARY_SUFFIX}")]:
            if path.name.removesuffix(".map") not in known:
                path.unlink()
        return [revision for revision in sound if revision.complete]

    def _parent(self, history: list[Revision]) -> tuple[Revision | None, ChunkMap | None]:
        """Choose the revision that source and storage build upon: the newest one with a sound map, or none."""
        storage = self.repository.config.storage["type"]
        for revision in reversed(history):
            try:
                if revision.storage == storage and relied_upon(revision):
                    return revision, self.repository.read_map(revision)
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
            storage=self.repository.config.storage["type"],
            size=0,
        )
        self.repository.write_record(revision)
        return revision

    def _fill(
        self, revision: Revision, snapshot: Snapshot, source: Source, storage: Storage, parent: ChunkMap | None
    ) -> Revision:
        """Store and verify the snapshot; return the complete record."""
        verifier = self.repository.verifier(source.verifier)
        started = self.clock()
        referenced = Referenced(self.repository)
        with storage.create(revision.id, revision.parent, snapshot.size, referenced) as writer:
            done = transfer(snapshot, writer, parent, self.steps("backup", snapshot.size))
            stored = writer.commit()
        if stored.durable:
            self._sync_earlier()
        digest = self.repository.write_map(revision.id, done.chunks)
        findings = _Findings(self, revision)
        with storage.open(revision.id) as reader:
            progress = self.steps("verify", snapshot.size)
            report = verifier.verify(snapshot, StoredImage(done.chunks, reader), findings.add, progress)
        findings.judge()
        return msgspec.structs.replace(
            revision,
            boot=None if stored.durable else boot_id(),
            map_digest=digest,
            verification=Verification(report.verifier, report.checked, report.total),
            statistics=self._statistics(started, done, stored),
        )

    def _sync_earlier(self) -> None:
        """Bring to the disk what this revision may share with earlier ones that were not synced themselves."""
        now = boot_id()
        if any(earlier.boot == now for earlier in self.repository.survey()[0]):
            sync_file_system_of(self.repository.directory)

    def _statistics(self, started: datetime, done: Transferred, stored: Stored) -> Statistics:
        return Statistics(
            duration=max((self.clock() - started).total_seconds(), 0.0),
            bytes_read=done.bytes_read,
            bytes_written=done.bytes_written,
            bytes_stored=stored.bytes,
        )


class _Findings:
    """What verification finds: evidence is kept of the first few mismatches, all are counted."""

    def __init__(self, backup: Backup, revision: Revision) -> None:
        self._backup = backup
        self._revision = revision
        self._count = 0
        self._first = ""

    def add(self, mismatch: Mismatch) -> None:
        """Take note of one mismatch."""
        if self._count < quarantine.MOST_FINDINGS:
            backup = self._backup
            folder = quarantine.keep(backup.repository.directory, self._revision.id, mismatch, backup.clock())
            log.error(
                "chunk %d of %s: %s; evidence is in %s", mismatch.index, self._revision.id, mismatch.cause, folder
            )
            self._first = (
                self._first or f"the first at chunk {mismatch.index}: {mismatch.cause}; evidence is in {folder}"
            )
        self._count += 1

    def judge(self) -> None:
        """Raise VerificationError if there was any mismatch."""
        if self._count:
            self._backup.events.verification_failed(self._backup.repository.job, self._revision.id, self._count)
            raise VerificationError(
                f"verification found {self._count} chunks that differ from the source, {self._first}; "
                "did the source change during the backup? The new revision is removed"
            )
