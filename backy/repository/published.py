"""Records that a storage keeps elsewhere as well, by which the directory can be made anew.

The order leaves a whole set on both sides after a crash at any time: chunks, map, state and record when a revision is
made, and the reverse when it is removed, there before here.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress

from backy.api import RecordKeepingStorage
from backy.durable import read_file, write_file
from backy.errors import DamageError, StorageError, warned
from backy.image.stored import LARGEST_MAP, ChunkMap
from backy.repository import sealed
from backy.repository.config import CONFIG, JobConfig, StorageSection, dump_job
from backy.repository.journal import digest
from backy.repository.records import ATTACHMENTS, MAP, RECORD, STATE, Records, ids_in, orphans
from backy.repository.revision import Record, Revision, State
from backy.repository.running import last_number, use_number
from backy.system.safeyaml import parse_yaml

log = logging.getLogger(__name__)
NUMBER = "seq"
"""Name of the published file with the last number of a revision, if no published record has it."""


def reduced(config: JobConfig, job_id: str) -> bytes:
    """Return what is published of `config`: what a rebuilt repository needs, and nothing that others must not know."""
    # options of the storage may be credentials; who rebuilds the repository has to know them
    storage = StorageSection({key: config.storage[key] for key in ("type", "name") if key in config.storage})
    public = JobConfig(format=config.format, id=job_id, storage=storage, schedule=config.schedule, expire=config.expire)
    return dump_job(public)


def fetched(storage: RecordKeepingStorage, name: str, listed: str) -> bytes:
    """Return a published file; raises DamageError if it is not the one that was listed, StorageError."""
    content = storage.fetch(name)
    if digest(content) != listed:
        raise DamageError(f"the published {name} is damaged: it is not what the storage lists")
    return content


class Published:
    """The records of one store as they are here and there. The caller holds `.backup` all the while."""

    def __init__(self, records: Records, storage: RecordKeepingStorage, identity: str) -> None:
        """List what is there; raises StorageError."""
        self._records = records
        self._storage = storage
        self.identity = identity
        """The identity of the store."""
        self._there = dict(storage.published())

    def require_own(self, job_id: str, config: bytes) -> None:
        """Refuse a store with the records of another repository than `job_id`, of which `config` is published.

        Raises:
            StorageError: its `config` is that of another repository, or can not be read.
        """
        if self._there.get(CONFIG) in {None, digest(config)}:
            return
        found = parse_yaml(fetched(self._storage, CONFIG, self._there[CONFIG]), "the published config")
        other = found.get("id") if isinstance(found, dict) else None
        if other != job_id:
            text = f"the store {self.identity} has the records of another repository, {other}"
            raise StorageError(f"{text}: 'backy init --from' makes its directory anew")

    # from there -------------------------------------------------------------------------------------------------------

    def fetch(self, *, strict: bool = False) -> None:
        """Write the revisions that are missing or damaged here, and the doubt that is known only there.

        Args:
            strict: Whether one that is damaged there, too, is an error, and no warning.

        Raises:
            DamageError: one is damaged there, and `strict` is true.
            StorageError: the storage can not be reached.
        """
        if NUMBER in self._there:
            with warned(log, "the number of the last revision may be used once more", (DamageError, ValueError)):
                use_number(self._records.directory, int(self._content(NUMBER)))
        sound, damaged = self._records.survey(trash=True)
        known = {revision.id: revision for revision in sound}
        for revision_id in self.records() - {error.revision_id for error in damaged if error.unread}:
            try:
                if revision_id not in known:
                    self._fetch(revision_id)
                # what can not be read now may be sound, and newer than what is there
                elif not known[revision_id].unread:
                    self._fetch_state(known[revision_id])
            except DamageError as error:
                if strict:
                    raise
                log.warning("revision %s is published, but can not be had: %s", revision_id, error)

    def _fetch(self, revision_id: str) -> None:
        # all is read before anything is written: a part of a revision would look like what a removal left
        content = self._content(revision_id + RECORD)
        chunks = self._map(sealed.decode(content, Record, revision_id + RECORD))
        state = self._state(revision_id)
        if chunks:
            write_file(self._records.map_path(revision_id), chunks)
        if revision_id + ATTACHMENTS in self._there:
            write_file(self._records.attachments_path(revision_id), self._content(revision_id + ATTACHMENTS))
        self._records.add_files("fetch", revision_id, content, sealed.encode(state) if state else b"")
        log.info("fetched the revision %s, which was missing here", revision_id)

    def _fetch_state(self, known: Revision) -> None:
        """Take the state from there if it is lost here, else the doubt that only the other one has."""
        name = known.id + STATE
        if known.state_problem or self._there.get(name) not in {None, digest(sealed.encode(known.state))}:
            there = self._state(known.id)
            state = there and known.state.with_doubt_of(there)
            if there and known.state_problem:
                # the journal may know that the revision is wrong, and the published state be older than that
                state = there.with_doubt_of(known.state) if known.state.wrong else there
            if state and state != known.state:
                log.warning("the state of revision %s is taken from where it is published", known.id)
                self._records.write_state(Revision.of(known.record, state), "fetch")

    def _map(self, record: Record) -> bytes:
        """Return the map of a revision whose record is not here; nothing if the one that is here is sound."""
        with suppress(DamageError):
            if self._records.load_map(record.id).digest == record.map_digest:
                return b""
        chunks = self._content(record.id + MAP)
        # a record must never name chunks that nobody can look up
        if ChunkMap.decode(bytearray(chunks)).digest != record.map_digest:
            raise DamageError(f"the published {record.id}{MAP} is not the map of its record")
        return chunks

    def _state(self, revision_id: str) -> State | None:
        """Return the published state; None if it is lost or damaged: without one, the revision is distrusted."""
        name = revision_id + STATE
        try:
            return sealed.decode(self._content(name), State, name)
        except DamageError as error:
            log.warning("%s", error)
            return None

    def records(self) -> set[str]:
        """Return the ids of the revisions whose records are published."""
        return ids_in(self._there, RECORD)

    def _content(self, name: str) -> bytes:
        if name not in self._there:
            raise DamageError(f"{name} is not published")
        return fetched(self._storage, name, self._there[name])

    # to there ---------------------------------------------------------------------------------------------------------

    def push(self, files: Mapping[str, bytes], *, strict: bool = False) -> None:
        """Publish what is here and not there, and withdraw revisions that another storage has.

        Args:
            files: Further files, by name.
            strict: Whether maps that are there are compared, which takes reading all of them here, and what interrupted
                commands left there is withdrawn.

        Raises:
            StorageError: the storage can not be reached; what is there is whole.
        """
        for name, content in files.items():
            self._publish(name, content)
        sound, damaged = self._records.survey(trash=True)
        number = last_number(self._records.directory)
        # of a backup that failed or was forgotten no record tells, and a rebuilt repository must not use it again
        if number > max((revision.seq for revision in sound if not revision.state.forgotten), default=0):
            self._publish(NUMBER, b"%d\n" % number)
        for revision in sound:
            if revision.storage in {None, self.identity} and not revision.state.forgotten:
                self._push(revision, strict=strict)
            else:
                self.withdraw(revision.id)
        # the record is the last to come and the first to go: what has none is left of an interrupted command; or it may
        # belong to a backup of this moment, if somebody rebuilds the repository of a machine that still works
        known = {revision.id for revision in sound} | {error.revision_id for error in damaged}
        for revision_id in orphans(self._there) - known if strict else ():
            self.withdraw(revision_id)

    def _push(self, revision: Revision, *, strict: bool) -> None:
        paths = self._records.map_path(revision.id), self._records.state_path(revision.id)
        complete = {path.name for path in paths} | {revision.id + RECORD} <= self._there.keys()
        if strict or not complete:
            # only a sound map: a damaged one must not take the place of what may be sound there
            try:
                self._records.read_map(revision)
            except DamageError as error:
                log.warning("revision %s is not published: %s", revision.id, error)
                return
            self._publish(paths[0].name, read_file(paths[0], LARGEST_MAP))
            with suppress(FileNotFoundError):
                attached = self._records.attachments_path(revision.id)
                self._publish(attached.name, read_file(attached, sealed.LARGEST))
        if not revision.state_problem:
            self._publish(paths[1].name, read_file(paths[1], sealed.LARGEST))
        self._publish(revision.id + RECORD, read_file(self._records.record_path(revision.id), sealed.LARGEST))

    def _publish(self, name: str, content: bytes) -> None:
        new, there = digest(content), self._there.get(name)
        if there == new:
            return
        # the storage never replaces a record; the one here is sound, so that there is not
        if there is not None and name.endswith(RECORD):
            self._withdraw(name)
        self._storage.publish(name, content)
        self._there[name] = new

    def withdraw(self, revision_id: str) -> None:
        """Remove what is published of a revision, the record first; raises StorageError."""
        for suffix in (RECORD, STATE, ATTACHMENTS, MAP):
            if revision_id + suffix in self._there:
                self._withdraw(revision_id + suffix)

    def _withdraw(self, name: str) -> None:
        self._storage.withdraw(name)
        del self._there[name]
