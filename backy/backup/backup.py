"""One backup, from the locks to the complete revision.

The order makes it safe: chunks are durable before the map that names them, map and state before the record that makes
the revision complete, and the record before the source may drop the snapshot of the parent.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, compress
from typing import Any

import msgspec
import shortuuid

from backy.api import LARGEST_IMAGE, FreezingSnapshot, Moment, Report, Snapshot, Source, Statistics, Stored, Verifier
from backy.backup.attached import collect
from backy.backup.findings import Assessment, Findings, recorded
from backy.backup.rest import Rest, Stages, moment_of
from backy.backup.snapshots import Limited, Unhinted, limits_of
from backy.backup.transfer import Base, LiveChunks, Transfer, Transferred, base_of, clean_up
from backy.durable import names_in, sync_file_system_of
from backy.errors import BackyError, RepositoryBusyError, SourceBusyError, SourceError, VerificationError, is_full
from backy.image.stored import ChunkMap, StoredImage
from backy.integrity import quarantine
from backy.integrity.damage import Judge, chunk_ids, referring, repair_or_distrust, report_damage
from backy.integrity.seen import Seen, doubt
from backy.plugins.broken import error_line
from backy.plugins.events import Events
from backy.repository.attachments import write as write_attachments
from backy.repository.repository import Repository
from backy.repository.revision import Birth, Disks, Revision, State, trusted_now, utc_now
from backy.repository.running import begin, begun, end, take_number
from backy.repository.storages import threads_for
from backy.retention.purge import leftovers, sweep
from backy.retention.tags import pin_before_shrinking
from backy.system.clocks import Instant, boot_id, boottime
from backy.system.locking import PURGE_LOCK, shared
from backy.system.progress import Steps, quiet
from backy.text.phrases import counted, length_of_time, size
from backy.verifiers.verifiers import Comparing

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
    state: Callable[[], dict[str, Any]] = dict
    """Returns further members of the new revision's state, when all of the image was read."""
    group: Disks | None = None
    """The group of disks that the new revision belongs to."""
    rest: Rest = field(default_factory=Rest)
    """Whether the writers rest while the snapshot is taken."""
    revision: Revision = field(init=False)
    """The new revision, once it is complete."""

    def run(self) -> Revision:
        """Make a new revision and return it.

        Raises:
            RepositoryBusyError, SourceBusyError: another backup is running.
            VerificationError: the stored image differs from the source; the new revision is removed.
            BackyError, OSError: anything else; the new revision is removed, the older ones are unchanged.
        """
        list(self.stages())
        return self.revision

    def stages(self) -> Stages:
        """Make `revision`; stop when it has begun, with the snapshot, when all is stored and verified, and recorded."""
        self._complete = False
        self._known: list[Revision] | None = None
        try:
            # The events outermost: their plugins are told when the locks are released.
            with self.events or Events.installed(self.repository.config.hooks) as self._events:
                try:
                    with self.repository.locked(storing=True, beside=True):
                        yield from self._bounded()
                except Exception as error:
                    # a busy one is no failure: the same backup may succeed later
                    if not self._complete and not isinstance(error, RepositoryBusyError | SourceBusyError):
                        self._events.tell("backy_backup_failed", job=self.repository.job, error=error_line(error))
                    raise
        except Exception as error:
            if not self._complete:
                raise
            # whatever follows is no reason to make the backup again
            log.warning("%s is complete, but what follows a backup failed: %s", self.revision.id, error_line(error))

    def _bounded(self) -> Stages:
        """Make a revision; of what backups store that do not end, keep one image for the next one."""
        # one that was killed could not do that itself
        if any(begun(names_in(self.repository.directory))):
            with self.repository.records.recording():
                clean_up(self.repository)
            self._sweep(full=False)
        try:
            with shared(self.repository.directory, PURGE_LOCK):
                yield from self._locked()
        except Exception as error:
            # of a busy source, nothing was stored
            if not self._complete and not isinstance(error, SourceBusyError):
                self._sweep(full=is_full(error))
            raise

    def _sweep(self, *, full: bool) -> None:
        """Remove the chunks that failed backups stored and later ones replaced; all of them if the disk is `full`."""
        try:
            if any(leftovers(self.repository)):
                if full:
                    self.repository.storages.discard()
                sweep(self.repository, self.repository.records.states())
        except (BackyError, OSError) as error:
            log.warning("what a backup stored that did not end stays: %s", error)

    def _locked(self) -> Stages:
        source = self.source or self.repository.source()
        moment = None if self.source else moment_of(self.repository.job, self.repository.config.moment)
        # here, so that a wrong section, or a store that is not there, fails before anything begins
        self.repository.require_store()
        self.repository.explain()
        self._events.ask("backy_backup_starting", job=self.repository.job, tags=self.tags)
        yield from self._make(source, moment)
        # before anybody is told that it is complete
        self.repository.publish_if_possible(again=True)
        self._events.tell("backy_backup_finished", job=self.repository.job, revision=self.revision.info)
        Judge(self.repository, self.clock, self.steps, self._events).recheck(self._known)

    def _make(self, source: Source, moment: AbstractContextManager[Moment] | None) -> Stages:
        """Make a revision from a snapshot of the source."""
        # at once: a parent that is chosen, but not told of, could be forgotten
        with self.repository.records.recording():
            everything = clean_up(self.repository)
            history = [revision for revision in everything if not revision.state.forgotten]
            base = base_of(self.repository, history)
            # of what was forgotten the numbers are used, too
            birth = self._begin(history, max((revision.seq for revision in everything), default=0), base.parent)
        seen = Seen.load(self.repository.directory, history, birth.seq)
        try:
            with ExitStack() as stack:
                yield
                with self.rest.during(moment):
                    snapshot = stack.enter_context(source.snapshot(birth.id, birth.parent))
                yield
                self.limits = limits_of(self.repository, source)
                making = _Making(self, self._events, birth, snapshot, seen)
                made = making.run(self.repository.verifiers(source.verifier), base)
                del base  # its map takes as much memory as what is saved now
                self._known = None if making.found_damage else history
                yield
                with self.repository.records.recording():
                    self.repository.records.add(made)
                    yield
                    self.revision, self._complete = made, True
                    seen.save(self.repository.directory)
                    self.repository.link_last(made)
        except BaseException as error:
            if not self._complete:
                with self.repository.records.recording():
                    self.repository.remove(birth.id, "clean up")
                raise
            # the revision is complete: a failing link, or source that cleans up, is no reason to lose it
            log.warning("%s is complete, but what follows a backup failed: %s", birth.id, error_line(error))
        # likewise; the next backup does it if this one can not
        with suppress(OSError, BackyError):
            end(self.repository.directory, birth.id)
            self.repository.storages.discard()

    def _begin(self, history: list[Revision], number: int, parent: Revision | None) -> Birth:
        """Take a number above `number` for the new revision and write down that its backup runs."""
        directory = self.repository.directory
        now = Instant(self.clock(), boot_id(), self.boottime())
        quarantine.bound(directory, self.repository.config.quarantine, now.wall)
        latest = max((revision.timestamp for revision in history), default=now.wall)
        if self.timestamp is None and latest > now.wall:
            log.warning("the clock is behind the newest revision of %s; is it set right?", latest)
        if self.timestamp is not None:
            # the image was taken elsewhere: no clock of this machine tells anything of that time
            now = Instant(self.timestamp, None, None)
        birth = Birth(
            id=self.revision_id or shortuuid.uuid(),
            seq=take_number(directory, number),
            timestamp=now.wall,
            boot=now.boot,
            boottime=now.boottime,
            trusted_time=now.wall if self.timestamp else trusted_now(history, now, self.repository.config.allowance),
            birth_tags=self.tags,
            parent=parent.id if parent else None,
        )
        begin(directory, birth)
        return birth


class _Making:
    """A revision between its snapshot and its complete record."""

    def __init__(self, backup: Backup, events: Events, birth: Birth, snapshot: Snapshot, seen: Seen) -> None:
        self._backup = backup
        self._events = events
        self._repository = backup.repository
        self._birth = birth
        self._seen = seen
        if snapshot.size > LARGEST_IMAGE:
            raise SourceError(f"the image has {snapshot.size} bytes, which is more than {LARGEST_IMAGE}")
        self._size = snapshot.size
        section = backup.repository.config.source
        torn = section is not None and section.accepts_torn
        self._assessment = Assessment(snapshot, accept_torn=torn, frozen=backup.rest.frozen)
        self._unfrozen = isinstance(snapshot, FreezingSnapshot) and snapshot.unfrozen
        limited = Limited(snapshot, backup.limits) if backup.limits else snapshot
        self._snapshot = limited if birth.parent else Unhinted(limited)
        self._started = backup.clock()
        # at once, as they tell of the machine as it is in the image
        self._attached = collect(snapshot, {} if backup.timestamp else backup.repository.config.attachments)
        self._hinted: Transferred | None = None
        """What was made of the source's changes, which turned out to be too few."""
        self.found_damage = False
        """Whether other revisions were distrusted or repaired."""

    def run(self, verifiers: Sequence[Verifier], base: Base) -> Revision:
        """Store and verify the snapshot; return the complete revision, which the caller writes.

        The `verifiers` compare what is stored with the snapshot, one after the other.
        """
        try:
            return self._made(verifiers, base)
        except VerificationError as error:
            if not self._hinted or not self._hinted.hinted:
                raise
            log.warning("%s; the source may have told too little of what changed, so now all of it is read", error)
        self._repository.storage().remove(self._birth.id)
        # of the same snapshot: what differs in it from what was made of its changes was hidden, and is no later change
        self._snapshot = Unhinted(self._snapshot)
        # chosen again: a revision may be distrusted now
        with self._repository.records.recording():
            base = base_of(self._repository, self._repository.records.history())
            self._birth = msgspec.structs.replace(self._birth, parent=base.parent_id)
            begin(self._repository.directory, self._birth)
        return self._made(verifiers, base)

    def _made(self, verifiers: Sequence[Verifier], base: Base) -> Revision:
        done, stored = self._store(base, verified=any(isinstance(one, Comparing) for one in verifiers))
        # before all of it is read again in vain
        self._assessment.require_one_instant()
        if self._hinted:
            hidden = {index: done.chunks[index] for index in done.chunks.differing(self._hinted.chunks)}
            self._tell_difference(hidden, self._hinted)
        self._hinted = done
        digest = self._repository.records.write_map(self._birth.id, done.chunks)
        with self._repository.open_stored(self._birth.id, done.chunks) as image:
            reports, damaged = self._verify(verifiers, image, done, stored)
            consistency = self._assessment.require_one_instant()
            if consistency == "none":
                log.warning("%s is torn: the source was written to while it was read", self._birth.id)
            statistics = self._statistics(done, stored)
            self._log(done, base, statistics)
            # the fresh image has the content of the source: older revisions are repaired from it
            self._settle(damaged, image)
        birth, total = self._birth, len(done.chunks)
        compared = chain.from_iterable(report.compared for report in reports)
        since = self._seen.note(birth, self._size, compress(range(total), done.seen), compared)
        storage = self._repository.storages.identity
        boot, known = None if stored.durable else boot_id(), self._backup.state()
        history = [] if self._backup.timestamp else base.history  # what shrank in the past is no news
        if self._attached.problems:
            reports.append(Report("attachments", (), remarks=self._attached.problems))
        with self._repository.records.recording():
            shrunk = pin_before_shrinking(self._repository, history, birth, done.chunks, base.chunks)
        return Revision(
            **msgspec.structs.asdict(birth),
            size=self._size,
            map_digest=digest,
            consistency=consistency,
            unfrozen=self._unfrozen,
            shrunk=shrunk,
            group=self._backup.group,
            attachments=write_attachments(self._repository.records, birth.id, self._attached.files),
            stall=self._backup.rest.stall,
            snapshot=self._backup.snapshot,
            statistics=statistics,
            verifications=tuple(recorded(report, total) for report in reports),
            compared_since=since,
            state=State(id=birth.id, tags=birth.birth_tags, storage=storage, unsynced_boot=boot, **known),
        )

    def _settle(self, damaged: set[bytes], donor: StoredImage | None = None) -> None:
        """Repair damage from the fresh image or distrust what refers to it, and tell of it."""
        left = repair_or_distrust(self._repository, damaged, donor)
        if damaged:
            self.found_damage = True
            # Without a donor the backup fails: what it repaired of its own image proves nothing for the others.
            event = "backy_damage_found" if left or not donor else "backy_damage_repaired"
            self._tell(event, revisions=tuple(left) or referring(self._repository, damaged), chunks=len(damaged))

    def _tell(self, event: str, **arguments: object) -> None:
        self._events.tell(event, job=self._repository.job, **arguments)

    def _tell_difference(self, found: Mapping[int, bytes], made: Transferred, mismatches: int = 0) -> None:
        """Doubt earlier revisions for chunks of which the source hid a change, and tell of what differs.

        Args:
            found: What a map has for chunks of the source that differ from those in `made`, by index.
            made: What is stored.
            mismatches: How many chunks a verifier called different; 0 tells only of new doubt.
        """
        hidden = self._assessment.hidden(found, made)
        with self._repository.records.recording():
            wrong = doubt(self._repository, hidden, self._seen.last, self._backup.clock())
        if wrong or mismatches:
            told = {"mismatches": mismatches or len(found), "revisions": tuple(wrong)}
            self._tell("backy_verification_failed", revision_id=self._birth.id, **told)

    def _store(self, base: Base, *, verified: bool) -> tuple[Transferred, Stored]:
        size = self._snapshot.size
        live = LiveChunks(self._repository.records, base.candidates)
        wrong = base.parent.state.wrong.chunks if base.parent and base.parent.state.wrong else ()
        storage = self._repository.storage()
        with storage.create(self._birth.id, self._birth.parent, size, live) as writer:
            progress = self._backup.steps("backup", size)
            threads = threads_for(storage, self._snapshot)
            done = Transfer(self._snapshot, writer, base.chunks, progress, threads, wrong, verified).run()
            stored = writer.commit()
        # chunks that this revision may share with earlier ones that were not synced
        if stored.durable and any(earlier.state.unsynced_boot for earlier in base.candidates):
            sync_file_system_of(self._repository.directory)
        return done, stored

    def _verify(
        self, verifiers: Sequence[Verifier], image: StoredImage, done: Transferred, stored: Stored
    ) -> tuple[list[Report], set[bytes]]:
        """Compare the stored image with the snapshot; return the reports and the ids of chunks that were damaged."""
        backup = self._backup
        report_damage(self._repository, stored.damaged, backup.clock)
        damaged = chunk_ids(stored.damaged)
        # elsewhere only a second read shows that the source was written to after the first one
        coverage = self._seen.coverage(self._birth.seq, self._size, stored.compared if self._assessment.certain else ())
        reports = []
        for verifier in verifiers:
            # of its own for each, because two may find the same chunk
            assessment = None if done.hinted else self._assessment
            findings = Findings(self._repository, self._birth.id, image, backup.clock, assessment)
            report = verifier.verify(self._snapshot, image, findings.add, backup.steps("verify", image.size), coverage)
            damaged |= findings.damaged
            if findings.failures:
                self._settle(damaged)
                # before all is read, which may take long, and fail
                self._tell_difference(findings.differing, done, findings.failures)
            # the next verifier is not asked about an image that is wrong
            findings.judge()
            if findings.changed:
                # of these, nothing is known
                report = replace(report, compared=[one for one in report.compared if one not in findings.changed])
            reports.append(report)
        return reports, damaged

    def _log(self, done: Transferred, base: Base, found: Statistics) -> None:
        changed = sum(1 for _ in done.chunks.differing(base.chunks or ChunkMap(0)))
        rate = f"{size(int(found.bytes_read / max(found.duration, 0.001)))}/s"
        what = f"{size(found.bytes_written)} in {counted(changed, 'chunk')} changed, {size(found.bytes_stored)} stored"
        read = f"{size(found.bytes_read)} of {size(self._size)} read in {length_of_time(found.duration)}, {rate}"
        log.info("%s: %s; %s", self._birth.id, what, read)

    def _statistics(self, done: Transferred, stored: Stored) -> Statistics:
        # not below 0: somebody may have set the clock back
        duration = max((self._backup.clock() - self._started).total_seconds(), 0.0)
        sizes = {"bytes_read": done.bytes_read, "bytes_written": done.bytes_written, "bytes_stored": stored.bytes}
        return Statistics(duration=duration, **sizes)
