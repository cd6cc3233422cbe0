"""One backup, from the locks to the complete revision.

The order makes it safe: chunks are durable before the map that names them, map and state before the record that makes
the revision complete, and the record before the source may drop the snapshot of the parent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

import shortuuid

from backy.api import (
    AssessedSnapshot,
    Consistency,
    FreezingSnapshot,
    Snapshot,
    Source,
    Statistics,
    Stored,
    Verification,
    Verifier,
)
from backy.backup.findings import Findings, recorded
from backy.backup.transfer import Transferred, Unhinted, transfer
from backy.durable import sync_file_system_of
from backy.errors import HintError, PluginError, RepositoryBusyError, SourceBusyError, VerificationError
from backy.image.chunkmap import ChunkMap
from backy.image.stored import StoredImage
from backy.integrity.damage import chunk_ids, referring, repair_or_distrust, report_damage
from backy.integrity.verify import recheck
from backy.plugins.broken import error_line
from backy.plugins.events import Events
from backy.repository.cleanup import clean_up
from backy.repository.clocks import Instant, boot_id, boottime, trusted_now
from backy.repository.live import LiveChunks, first_sound, reliable
from backy.repository.repository import Repository
from backy.repository.revision import Record, Revision, State, utc_now
from backy.repository.running import Running, begin, end, take_number
from backy.repository.storages import threads_for
from backy.system.locking import PURGE_LOCK, shared
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
    boottime: Callable[[], float] = boottime
    """Returns the seconds since the machine was started."""
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
        """Make a new revision and return it.

        Raises:
            RepositoryBusyError, SourceBusyError: another backup is running.
            VerificationError: the stored image differs from the source; the new revision is removed.
            BackyError, OSError: anything else; the new revision is removed, the older ones are unchanged.
        """
        events = self.events or Events.installed(self.repository.config.hooks)
        # The events outermost: their plugins are told when the locks are released.
        with events:
            self._events = events
            try:
                with self.repository.locked(), shared(self.repository.directory, PURGE_LOCK):
                    return self._locked()
            except (RepositoryBusyError, SourceBusyError):
                raise  # no failure: the same backup may succeed later
            except Exception as error:
                events.tell("backy_backup_failed", job=self.repository.job, error=error_line(error))
                raise

    def _locked(self) -> Revision:
        source = self.source or self.repository.source()
        # here, so that a wrong section, or a store that is not there, fails before anything begins
        self.repository.require_store()
        self.repository.explain()
        self._events.ask("backy_backup_starting", job=self.repository.job, tags=self.tags)
        try:
            revision = self._attempt(source, hinted=True)
        except HintError as error:
            log.warning("%s; the source may have told too little of what changed, so now all of it is read", error)
            revision = self._attempt(source, hinted=False)
        # before anybody is told that it is complete
        self.repository.publish_if_possible()
        self._events.tell("backy_backup_finished", job=self.repository.job, revision=revision.info)
        recheck(self.repository, self.clock, self.steps, self._events)
        return revision

    def _attempt(self, source: Source, *, hinted: bool) -> Revision:
        """Make a revision; read only the changes that the source reports if `hinted` is true, else all of it."""
        history = clean_up(self.repository)
        candidates = self._candidates(history)
        parent, parent_map = first_sound(self.repository, reversed(candidates)) or (None, None)
        birth = self._begin(history, parent)
        parent_id = parent.id if parent and hinted else None
        revision: Revision | None = None
        try:
            with source.snapshot(birth.id, parent_id) as snapshot:
                making = _Making(self, self._events, birth, snapshot, hinted=parent_id is not None)
                made = making.run(self.repository.verifiers(source.verifier), candidates, parent_map)
                self.repository.records.add(made)
                revision = made
                self.repository.link_last(revision)
        except BaseException as error:
            if revision is None:
                self.repository.remove(birth.id)
                raise
            # the revision is complete: a failing link, or source that cleans up, is no reason to lose it
            log.error("%s is complete, but what follows a backup failed: %s", revision.id, error)  # noqa: TRY400  # an operator gets one line, no traceback
        # likewise; the next backup removes it if this one can not
        with suppress(OSError):
            end(self.repository.directory, birth.id)
        return revision

    def _candidates(self, history: list[Revision]) -> list[Revision]:
        """Return the revisions that may be built upon: the reliable ones in the job's storage."""
        for revision in history:
            if revision.suspect:
                # until it is read, nobody knows which chunks are damaged, and other revisions may share them
                log.warning("revision %s is distrusted: this backup is a full one and stores all anew", revision.id)
                return []
        storage = self.repository.storages.identity
        return [revision for revision in history if revision.storage == storage and reliable(revision)]

    def _begin(self, history: list[Revision], parent: Revision | None) -> _Birth:
        """Take a number for the new revision and write down that its backup runs."""
        directory = self.repository.directory
        now = Instant(self.clock(), boot_id(), self.boottime())
        latest = max((revision.timestamp for revision in history), default=now.wall)
        if self.timestamp is None and latest > now.wall:
            log.warning("the clock is behind the newest revision of %s; is it set right?", latest)
        if self.timestamp is not None:
            # the image was taken elsewhere: no clock of this machine tells anything of that time
            now = Instant(self.timestamp, None, None)
        records = [revision.record for revision in history]
        birth = _Birth(
            id=self.revision_id or shortuuid.uuid(),
            seq=take_number(directory, max((revision.seq for revision in history), default=0)),
            instant=now,
            trusted_time=now.wall if self.timestamp else trusted_now(records, now, self.repository.config.allowance),
            tags=self.tags,
            parent=parent.id if parent else None,
        )
        begin(directory, Running(id=birth.id, seq=birth.seq, timestamp=now.wall, tags=birth.tags))
        return birth


@dataclass(frozen=True)
class _Birth:
    """What is known of a revision when its backup begins."""

    id: str
    seq: int
    instant: Instant
    trusted_time: datetime
    tags: tuple[str, ...]
    parent: str | None


class _Making:
    """A revision between its snapshot and its complete record."""

    def __init__(self, backup: Backup, events: Events, birth: _Birth, snapshot: Snapshot, *, hinted: bool) -> None:
        self._backup = backup
        self._events = events
        self._repository = backup.repository
        self._birth = birth
        self._size = snapshot.size
        self._consistency = _consistency(snapshot)
        self._unfrozen = isinstance(snapshot, FreezingSnapshot) and snapshot.unfrozen
        self._snapshot = snapshot if hinted else Unhinted(snapshot)

    def run(self, verifiers: Sequence[Verifier], candidates: list[Revision], parent: ChunkMap | None) -> Revision:
        """Store and verify the snapshot; return the complete revision, which the caller writes.

        Args:
            verifiers: Compare what is stored with the snapshot, one after the other.
            candidates: Revisions whose chunks need not be stored again.
            parent: Map of the parent, if there is one.
        """
        started = self._backup.clock()
        done, stored = self._store(candidates, parent)
        digest = self._repository.records.write_map(self._birth.id, done.chunks)
        with self._repository.open_stored(self._birth.id, done.chunks) as image:
            verifications, damaged = self._verify(verifiers, image, done, stored)
            record = self._record(digest, self._statistics(started, done, stored), tuple(verifications))
            # the fresh image has the content of the source: older revisions are repaired from it
            self._settle(damaged, image)
        storage = self._repository.storages.identity
        boot = None if stored.durable else boot_id()
        return Revision(record, State(id=record.id, tags=record.tags, storage=storage, unsynced_boot=boot))

    def _record(self, digest: str, statistics: Statistics, verifications: tuple[Verification, ...]) -> Record:
        birth = self._birth
        return Record(
            id=birth.id,
            seq=birth.seq,
            timestamp=birth.instant.wall,
            boot=birth.instant.boot,
            boottime=birth.instant.boottime,
            trusted_time=birth.trusted_time,
            tags=birth.tags,
            parent=birth.parent,
            size=self._size,
            map_digest=digest,
            consistency=self._consistency,
            unfrozen=self._unfrozen,
            snapshot=self._backup.snapshot,
            statistics=statistics,
            verifications=verifications,
        )

    def _settle(self, damaged: set[bytes], donor: StoredImage | None = None) -> None:
        """Repair damage from the fresh image or distrust what refers to it, and tell of it."""
        left = repair_or_distrust(self._repository, damaged, donor)
        if damaged:
            # Without a donor the backup fails: what it repaired of its own image proves nothing for the others.
            event = "backy_damage_found" if left or not donor else "backy_damage_repaired"
            revisions = tuple(left) or referring(self._repository, damaged)
            self._tell(event, revisions=revisions, chunks=len(damaged))

    def _tell(self, event: str, **arguments: object) -> None:
        self._events.tell(event, job=self._repository.job, **arguments)

    def _store(self, candidates: list[Revision], parent: ChunkMap | None) -> tuple[Transferred, Stored]:
        size = self._snapshot.size
        live = LiveChunks(self._repository.records, candidates)
        storage = self._repository.storage()
        with storage.create(self._birth.id, self._birth.parent, size, live) as writer:
            progress = self._backup.steps("backup", size)
            done = transfer(self._snapshot, writer, parent, progress, threads_for(storage))
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
            findings = Findings(self._repository, self._birth.id, image, backup.clock)
            report = verifier.verify(self._snapshot, image, findings.add, backup.steps("verify", image.size))
            damaged |= findings.damaged
            if findings.failures:
                self._settle(damaged)
                self._tell("backy_verification_failed", revision_id=self._birth.id, mismatches=findings.failures)
            # the next verifier is not asked about an image that is wrong
            findings.judge(HintError if done.hinted else VerificationError)
            verifications.append(recorded(report))
        return verifications, damaged

    def _sync_earlier(self) -> None:
        """Bring chunks to the disk that this revision may share with earlier ones that were not synced."""
        now = boot_id()
        if any(earlier.state.unsynced_boot == now for earlier in self._repository.records.survey()[0]):
            sync_file_system_of(self._repository.directory)

    def _statistics(self, started: datetime, done: Transferred, stored: Stored) -> Statistics:
        return Statistics(
            # not below 0: somebody may have set the clock back
            duration=max((self._backup.clock() - started).total_seconds(), 0.0),
            bytes_read=done.bytes_read,
            bytes_written=done.bytes_written,
            bytes_stored=stored.bytes,
        )


def _consistency(snapshot: Snapshot) -> Consistency:
    """Return what a snapshot says of itself, in one of the words that there are."""
    said = snapshot.consistency if isinstance(snapshot, AssessedSnapshot) else "unknown"
    # a record with another word could not be read again
    if said not in get_args(Consistency):
        raise PluginError(f"the source calls its image '{said}'; it is one of {', '.join(get_args(Consistency))}")
    return said
