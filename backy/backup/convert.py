"""Moving the revisions of a repository into another storage, so that each of them can be read at any time.

The order is the safety argument, as it is in a backup. First `config` names the new storage, and the old one as
`previous_storage`. Of each revision, the newest first, the new storage gets a copy, which is brought to the disk and
read back; then the record that names the new storage replaces the old one in one step; only then the old data goes.
Wherever this is interrupted, the records say what is where, and to convert again goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from backy.api import CHUNK_SIZE, DisposableStorage, Extent, ImageReader, Stored
from backy.backup.transfer import transfer
from backy.durable import sync_file_system_of
from backy.errors import BackyError, ChunkDamageError, DamageError, RepositoryBusyError, StorageError
from backy.image.chunkmap import ZERO, ChunkMap
from backy.image.stored import StoredImage
from backy.integrity.damage import chunk_ids, damage_of, damaged_chunks, report_damage, settle
from backy.repository.cleanup import tidy
from backy.repository.config import ShortSection
from backy.repository.referenced import Referenced, relied_upon
from backy.repository.repository import Repository
from backy.repository.revision import Revision, utc_now
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, exclusive, shared
from backy.system.progress import Steps, quiet

log = logging.getLogger(__name__)


@dataclass
class Converted:
    """What came of a conversion."""

    revisions: list[str] = field(default_factory=list)
    """Ids of those that the new storage keeps now and did not before, the newest first."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why others stay where they are: they are damaged."""


@dataclass
class Conversion:
    """The conversion of one repository to the storage `name`; `run` does it, or goes on with it."""

    repository: Repository
    name: str
    clock: Callable[[], datetime] = utc_now
    steps: Steps = quiet

    def __post_init__(self) -> None:
        self._result = Converted()
        self._read_back: set[bytes] = set()
        """Ids of the chunks that the new storage was seen to have, where one look holds for all revisions."""

    def run(self) -> Converted:
        """Convert every revision that another storage keeps, and give that storage up once none is left.

        Raises:
            RepositoryBusyError: a backup is running; or all is done but somebody reads, so that old data stays.
            StorageError: the new storage can not work in this directory; nothing is changed.
            DamageError: a record is damaged; nothing is changed.
            BackyError, OSError: anything else; what was converted so far is, and the rest is as it was.
        """
        directory = self.repository.directory
        with exclusive(directory, BACKUP_LOCK):
            for error in self.repository.records.survey()[1]:
                raise DamageError(f"{error}; nothing is converted before it is forgotten by its full id")
            waiting = [revision for revision in reversed(tidy(self.repository)) if revision.storage != self.name]
            self._switch(waiting)
            for revision in waiting:
                with shared(directory, PURGE_LOCK):
                    self._convert_if_sound(revision)
                with suppress(RepositoryBusyError), exclusive(directory, PURGE_LOCK):
                    self._remove_old([revision.id])
            if not self._result.failed:
                with exclusive(directory, PURGE_LOCK):
                    self._give_up_old()
        return self._result

    def _switch(self, waiting: Sequence[Revision]) -> None:
        """Let `config` name the new storage, and the old one as the previous one, as it may do already."""
        config = self.repository.config
        new, old = config.storage, config.previous_storage
        if old is not None and old.type == new.type:
            old = None  # config was edited
        if new.type != self.name:
            if old is not None and old.type != self.name:
                raise BackyError(
                    f"the conversion from '{old.type}' to '{new.type}' is not finished: convert to either first"
                )
            new, old = old or ShortSection.named(self.name), new
        elif old is None and waiting:
            old = ShortSection.named(waiting[0].storage)  # likewise
        changed = msgspec.structs.replace(config, storage=new, previous_storage=old)
        if waiting or changed != config:
            self.repository.storage(self.name).initialize()
        if changed != config:
            self.repository.write_config(changed)

    # one revision -----------------------------------------------------------------------------------------------------

    def _convert_if_sound(self, revision: Revision) -> None:
        """Convert a revision; one that is damaged stays where it is, for its damage may still be mended."""
        try:
            self._convert(revision)
        except ChunkDamageError as error:
            report_damage(self.repository, [error], self.clock, mended=False)
            settle(self.repository, chunk_ids([error]), None)
            self._result.failed[revision.id] = str(error)
        except DamageError as error:
            self._result.failed[revision.id] = str(error)
        else:
            self._result.revisions.append(revision.id)

    def _convert(self, revision: Revision) -> None:
        base, base_map = self._base(revision)
        with self.repository.open_image(revision) as image:
            snapshot = _StoredSnapshot(image.chunks, image.reader, base_map)
            stored = self._copy(revision, base, base_map, snapshot)
            self._check(msgspec.structs.replace(revision, storage=self.name), snapshot)
        if not stored.durable:
            sync_file_system_of(self.repository.directory)
        statistics = revision.statistics and msgspec.structs.replace(revision.statistics, bytes_stored=stored.bytes)
        converted = msgspec.structs.replace(revision, storage=self.name, boot=None, statistics=statistics)
        self.repository.raw_path(converted)
        self.repository.records.write(converted)
        self.repository.link_last()
        log.info("revision %s is kept by the storage '%s' now", revision.id, self.name)

    def _base(self, revision: Revision) -> tuple[Revision | None, ChunkMap | None]:
        """Choose what the copy is built upon: the revision nearest in time that the new storage has already."""
        history = self._relied_upon()
        for near in sorted(history, key=lambda other: abs(other.timestamp - revision.timestamp)):
            try:
                self.repository.raw_path(near)
                return near, self.repository.records.read_map(near)
            except DamageError as error:
                log.warning("%s; it is not built upon", error)
        return None, None

    def _relied_upon(self) -> list[Revision]:
        """Return what the new storage keeps and can be built upon."""
        history = self.repository.records.history()
        return [revision for revision in history if revision.storage == self.name and relied_upon(revision)]

    def _copy(
        self, revision: Revision, base: Revision | None, base_map: ChunkMap | None, snapshot: _StoredSnapshot
    ) -> Stored:
        """Store the revision in the new storage; every chunk is compared with its id on the way."""
        referenced = Referenced(self.repository.records, self._relied_upon())
        progress = self.steps("convert", snapshot.size)
        storage = self.repository.storage(self.name)
        with storage.create(revision.id, base.id if base else None, snapshot.size, referenced) as writer:
            transfer(snapshot, writer, base_map, progress)
            return writer.commit()

    def _check(self, copy: Revision, original: StoredImage) -> None:
        """Read the copy back; what it lacks, as a chunk that was stored before and is damaged, it gets once more."""
        storage = self.repository.storage(self.name)
        known = self._read_back if storage.shares_chunks else set()
        chunks = original.chunks
        indexes = [index for index in chunks.data() if chunks[index] not in known]
        with self.repository.open_image(copy, chunks) as image:
            for index, _ in damaged_chunks(image, indexes, self.steps("verify", chunks.size)):
                storage.repair(copy.id, index, chunks[index], original.chunk(index))
                if error := damage_of(image, index):
                    raise StorageError(f"the copy of revision {copy.id} can not be read back: {error}")
        if storage.shares_chunks:
            self._read_back |= {chunks[index] for index in indexes}

    # the old storage --------------------------------------------------------------------------------------------------

    def _remove_old(self, revisions: Sequence[str]) -> None:
        """Remove what the old storage has of revisions that are converted; nobody reads."""
        previous = self.repository.config.previous_storage
        if previous is not None:
            storage = self.repository.storage(previous.type)
            for revision in revisions:
                if revision not in self._result.failed:
                    storage.remove(revision)

    def _give_up_old(self) -> None:
        """Remove all that the old storage has left, and its name from `config`; nobody reads."""
        previous = self.repository.config.previous_storage
        if previous is not None:
            self._remove_old([revision.id for revision in self.repository.records.history()])
            storage = self.repository.storage(previous.type)
            if isinstance(storage, DisposableStorage):
                storage.dispose()
            else:
                storage.purge(())
            self.repository.write_config(msgspec.structs.replace(self.repository.config, previous_storage=None))


class _StoredSnapshot(StoredImage):
    """A revision as the source of its copy; it knows what differs from the revision that the copy is built upon."""

    def __init__(self, chunks: ChunkMap, reader: ImageReader, base: ChunkMap | None) -> None:
        super().__init__(chunks, reader)
        self._base = base

    def changes(self) -> Iterator[Extent] | None:
        """Yield the chunks whose ids differ; nothing is known if there is no base."""
        return None if self._base is None else self._differing(self._base)

    def _differing(self, base: ChunkMap) -> Iterator[Extent]:
        for index in range(len(self.chunks)):
            chunk_id = self.chunks[index]
            if index >= len(base) or chunk_id != base[index]:
                yield Extent(index * CHUNK_SIZE, self.chunks.length(index), chunk_id != ZERO)
