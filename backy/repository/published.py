"""Records that a storage keeps elsewhere as well, by which the directory can be made anew.

The order leaves a whole set on both sides after a crash at any time: chunks, map, state and record when a revision is
made, and the reverse when it is removed, there before here.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress

from backy.api import ID_PATTERN, RecordKeepingStorage
from backy.durable import READ_ONLY, write_file
from backy.errors import DamageError, StorageError
from backy.image.chunkmap import ChunkMap
from backy.repository import sealed
from backy.repository.config import CONFIG, JobConfig, StorageSection, dump_job
from backy.repository.records import Records
from backy.repository.revision import Record, Revision, State
from backy.system.safeyaml import parse_yaml

log = logging.getLogger(__name__)
_RECORD, _STATE, _MAP = ".rev", ".state", ".map"


def reduced(config: JobConfig, job_id: str) -> bytes:
    """Return what is published of `config`: what a rebuilt repository needs, and nothing that others must not know."""
    # options of the storage may be credentials; who rebuilds the repository has to know them
    kept = {key: config.storage.written[key] for key in ("type", "name") if key in config.storage.written}
    storage = StorageSection(kept)
    public = JobConfig(format=config.format, id=job_id, storage=storage, schedule=config.schedule, expire=config.expire)
    return dump_job(public)


def fetched(storage: RecordKeepingStorage, name: str, digest: str) -> bytes:
    """Return a published file; raises DamageError if it is not the one that was listed, StorageError."""
    content = storage.fetch(name)
    if hashlib.sha256(content).hexdigest() != digest:
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

    def require_own(self, config: bytes) -> None:
        """Refuse a store that has another repository's records; `config` is what is published of this one's.

        Raises:
            StorageError: its `config` is that of another repository, or can not be read.
        """
        if self._there.get(CONFIG) in {None, _digest(config)}:
            return
        found = parse_yaml(fetched(self._storage, CONFIG, self._there[CONFIG]), "the published config")
        ours = parse_yaml(config, CONFIG)
        if not isinstance(found, dict) or not isinstance(ours, dict) or found.get("id") != ours["id"]:
            other = found.get("id") if isinstance(found, dict) else None
            raise StorageError(
                f"the store {self.identity} has the records of another repository, {other}: 'backy init --from' makes "
                "its directory anew"
            )

    # from there -------------------------------------------------------------------------------------------------------

    def fetch(self, *, strict: bool = False) -> None:
        """Write the revisions that are missing or damaged here.

        Args:
            strict: Whether one that is damaged there, too, is an error, and no warning.

        Raises:
            DamageError: one is damaged there, and `strict` is true.
            StorageError: the storage can not be reached.
        """
        sound = {revision.id: revision for revision in self._records.survey()[0]}
        for revision_id in self._ids(_RECORD):
            known = sound.get(revision_id)
            if known and not known.state_problem:
                continue
            try:
                self._fetch(revision_id, known)
            except DamageError as error:
                if strict:
                    raise
                log.warning("revision %s is published, but can not be had: %s", revision_id, error)

    def _fetch(self, revision_id: str, known: Revision | None) -> None:
        # all is read before anything is written: a part of a revision would look like what a removal left
        content, chunks = b"", b""
        if known is None:
            content = self._content(revision_id + _RECORD)
            record = sealed.decode(content, Record, revision_id + _RECORD)
            chunks = self._map(record)
        state = self._state(revision_id)
        if chunks:
            write_file(self._records.map_path(revision_id), chunks)
        if state:
            write_file(self._records.state_path(revision_id), state, READ_ONLY)
        if content:
            write_file(self._records.record_path(revision_id), content, READ_ONLY)
            log.info("fetched the revision %s, which was missing here", revision_id)

    def _map(self, record: Record) -> bytes:
        """Return the map of a revision whose record is not here; nothing if the one that is here is sound."""
        with suppress(DamageError):
            if self._records.load_map(self._records.map_path(record.id)).digest == record.map_digest:
                return b""
        chunks = self._content(record.id + _MAP)
        # a record must never name chunks that nobody can look up
        if ChunkMap.decode(bytearray(chunks)).digest != record.map_digest:
            raise DamageError(f"the published {record.id}{_MAP} is not the map of its record")
        return chunks

    def _state(self, revision_id: str) -> bytes:
        """Return the published state; nothing if it is lost or damaged, which makes the revision a distrusted one."""
        if revision_id + _STATE not in self._there:
            return b""
        try:
            state = self._content(revision_id + _STATE)
            sealed.decode(state, State, revision_id + _STATE)
        except DamageError as error:
            log.warning("%s", error)
            return b""
        return state

    def records(self) -> set[str]:
        """Return the ids of the revisions whose records are published."""
        return self._ids(_RECORD)

    def _content(self, name: str) -> bytes:
        if name not in self._there:
            raise DamageError(f"{name} is not published")
        return fetched(self._storage, name, self._there[name])

    # to there ---------------------------------------------------------------------------------------------------------

    def push(self, files: Mapping[str, bytes], *, strict: bool = False) -> None:
        """Publish what is here and not there, and withdraw what is left of revisions that are in no storage or another.

        Args:
            files: Further files, by name.
            strict: Whether maps that are there are compared, which takes reading all of them here.

        Raises:
            StorageError: the storage can not be reached; what is there is whole.
        """
        for name, content in files.items():
            self._publish(name, content)
        sound, damaged = self._records.survey()
        for revision in sound:
            if revision.storage in {None, self.identity}:
                self._push(revision, strict=strict)
            else:
                self.withdraw(revision.id)
        # the record is the last to come and the first to go: what has none is left of an interrupted command
        known = {revision.id for revision in sound} | {error.revision_id for error in damaged} | self._ids(_RECORD)
        for revision_id in (self._ids(_MAP) | self._ids(_STATE)) - known:
            self.withdraw(revision_id)

    def _push(self, revision: Revision, *, strict: bool) -> None:
        paths = self._records.map_path(revision.id), self._records.state_path(revision.id)
        complete = {path.name for path in paths} | {revision.id + _RECORD} <= self._there.keys()
        if strict or not complete:
            # only a sound map: a damaged one must not take the place of what may be sound there
            try:
                self._records.read_map(revision)
            except DamageError as error:
                log.warning("revision %s is not published: %s", revision.id, error)
                return
            self._publish(paths[0].name, paths[0].read_bytes())
        if not revision.state_problem:
            self._publish(paths[1].name, paths[1].read_bytes())
        self._publish(revision.id + _RECORD, self._records.record_path(revision.id).read_bytes())

    def _publish(self, name: str, content: bytes) -> None:
        digest = _digest(content)
        there = self._there.get(name)
        if there == digest:
            return
        # the storage never replaces a record; the one here is sound, so that there is not
        if there is not None and name.endswith(_RECORD):
            self._withdraw(name)
        self._storage.publish(name, content)
        self._there[name] = digest

    def withdraw(self, revision_id: str) -> None:
        """Remove what is published of a revision, the record first; raises StorageError."""
        for suffix in (_RECORD, _STATE, _MAP):
            if revision_id + suffix in self._there:
                self._withdraw(revision_id + suffix)

    def _withdraw(self, name: str) -> None:
        self._storage.withdraw(name)
        del self._there[name]

    def _ids(self, suffix: str) -> set[str]:
        """Return the ids of the revisions with a published file of this kind."""
        ids = {name.removesuffix(suffix) for name in self._there if name.endswith(suffix)}
        # names that are no ids may lead out of the directory
        return {revision_id for revision_id in ids if ID_PATTERN.fullmatch(revision_id)}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
