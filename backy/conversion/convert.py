"""Move the revisions of a repository into another storage; each of them can be read at any time.

The order makes it safe, as in a backup. First `config` names the new storage, and the old one among
`earlier_storages`. Each revision, the newest first, is copied to the new storage, read back and synced. Then a state
with the new storage's identity replaces the old state in one step, and only then the old data is removed. After an
interruption the states tell which storage has what, and another conversion continues. Before an old storage is given
up, every chunk of every revision has been read from the new one.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from backy.api import Config, DisposableStorage, Stored
from backy.backup.transfer import LiveChunks, Transfer, clean_up, nearest, reliable_in
from backy.durable import sync_file_system_of
from backy.errors import ChunkDamageError, ConfigError, DamageError, RepositoryBusyError, StorageError
from backy.image.stored import ChangedImage, ChunkMap, StoredImage
from backy.integrity.damage import damage_of, damaged_chunks, note_damage
from backy.repository.config import JobConfig, StorageSection
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision, utc_now
from backy.repository.storages import threads_for
from backy.system.locking import PURGE_LOCK, exclusive, shared
from backy.system.progress import Steps, quiet

log = logging.getLogger(__name__)


@dataclass
class Converted:
    """The result of a conversion."""

    stored: dict[str, int] = field(default_factory=dict)
    """Bytes of the new files of each revision that was moved, by id, the newest first."""
    failed: dict[str, str] = field(default_factory=dict)
    """Damage of each revision that was not moved, by id."""


@dataclass
class Conversion:
    """The conversion of one repository to the storage of type `name`, new or interrupted."""

    repository: Repository
    name: str
    options: Config = field(default_factory=dict)
    """The other keys of its section. Without any, a storage of this type that `config` names already is meant."""
    clock: Clock = utc_now
    steps: Steps = quiet

    def __post_init__(self) -> None:
        self._result = Converted()
        self._read_back: set[bytes] = set()
        """Ids of the chunks that were read back, if one copy of a chunk serves all revisions."""
        self._new = ""
        """Identity of the new storage."""
        self.target = _section(self.repository.config, self.name, self.options)

    def plan(self) -> list[str]:
        """Return the ids of the revisions that `run` would move, the newest first; raises ConfigError, PluginError."""
        storages, config = self.repository.storages, self.repository.config
        storages.made(self.target)
        there = storages.identity_of(self.target) if self.target in config.storages else None
        history = reversed(self.repository.records.history(trash=True))
        return [one.id for one in history if self.repository.store_of(one) != there]

    def run(self) -> Converted:
        """Convert every revision that another storage keeps; give that storage up when none is left.

        Raises:
            RepositoryBusyError: a backup is running; or all is done but somebody reads, so that old data stays.
            StorageError: the new storage can not work in this directory, or is the same store as the old one; nothing
                is changed.
            DamageError: a record is damaged; nothing is changed.
            BackyError, OSError: anything else; some revisions are converted, the others are unchanged.
        """
        directory = self.repository.directory
        with self.repository.locked(storing=True):
            for error in self.repository.records.survey()[1]:
                what = "can be read" if error.unread else "is forgotten by its full id"
                raise DamageError(f"{error}; nothing is converted before it {what}")
            revisions = self._located()
            self.repository.change_storage(self.target)
            self._new = self.repository.require_store()
            self.repository.reconcile()
            for revision in revisions:
                if revision.storage == self._new:
                    continue
                with shared(directory, PURGE_LOCK), self._failing(revision):
                    self._convert(revision)
                # the record there has to go before the data that it names
                self.repository.publish()
                # a reader may still have the old data open: it goes at the end, or with the next conversion
                with suppress(RepositoryBusyError), exclusive(directory, PURGE_LOCK):
                    self._remove_old([revision.id])
            self._finish()
        return self._result

    def _finish(self) -> None:
        """Give the old storages up, if every chunk can be read from the new one."""
        if not self.repository.config.earlier_storages or self._result.failed:
            return
        with shared(self.repository.directory, PURGE_LOCK):
            for revision in self.repository.records.history(trash=True):
                # an earlier run converted it, and its chunks may have been damaged since
                if revision.id not in self._result.stored:
                    with self._failing(revision):
                        self._read(revision)
        if not self._result.failed:
            with exclusive(self.repository.directory, PURGE_LOCK):
                self._give_up_old()

    def _located(self) -> list[Revision]:
        """Return all revisions, the newest first, with the storage of each."""
        found, store_of = reversed(clean_up(self.repository)), self.repository.store_of
        # written where it was lost with the state, because `config` is about to name another storage
        return [self.repository.records.change(one, "convert", storage=store_of(one)) for one in found]

    # one revision -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _failing(self, revision: Revision) -> Iterator[None]:
        """Note the damage of a revision. It stays where it is, because the old storage may still be repaired."""
        try:
            yield
        except DamageError as error:
            self._result.failed[revision.id] = str(error)
            if isinstance(error, ChunkDamageError):
                note_damage(self.repository, [error], self.clock)

    def _convert(self, revision: Revision) -> None:
        with self.repository.open_image(revision) as image:
            stored = self._copy(revision, image)
            self._read(revision.changed(storage=self._new), image)
        # a state that names the copy must not outlive it
        if not stored.durable:
            sync_file_system_of(self.repository.directory)
        # raises if the raw image is missing or has a wrong size
        self.repository.raw_path(revision.changed(storage=self._new))
        self.repository.records.change(revision, "convert", storage=self._new, unsynced_boot=None)
        self.repository.link_last()
        self.repository.storages.discard()
        self._result.stored[revision.id] = stored.bytes
        log.info("revision %s is kept by the storage '%s' now", revision.id, self.name)

    def _copy(self, revision: Revision, image: StoredImage) -> Stored:
        """Store the revision in the new storage; every chunk is compared with its id on the way."""
        base = nearest(self.repository, reliable_in(self._new, self.repository.records.history()), revision.seq)
        snapshot = ChangedImage(image.chunks, image.reader, base.chunks or ChunkMap(0))
        live = LiveChunks(self.repository.records, base.candidates)
        progress = self.steps("convert", image.size)
        storage = self.repository.storages.own
        with storage.create(revision.id, base.parent_id, image.size, live) as writer:
            Transfer(snapshot, writer, base.chunks, progress, threads_for(storage)).run()
            return writer.commit()

    def _read(self, revision: Revision, original: StoredImage | None = None) -> None:
        """Read those chunks from the new storage that this run has not read yet.

        A copy that is made of `original` may name a chunk that the new storage had before, and damaged: that is stored
        again. Without an original, damage is raised.
        """
        storage = self.repository.storages.own
        with self.repository.open_image(revision) as image:
            chunks = image.chunks
            indexes = [index for index in chunks.data() if chunks[index] not in self._read_back]
            for index, damage in damaged_chunks(image, indexes, self.steps("verify", chunks.size)).items():
                if original is None:
                    raise damage
                storage.repair(revision.id, index, chunks[index], original.chunk(index))
                if error := damage_of(image, index):
                    raise StorageError(f"the copy of revision {revision.id} can not be read back: {error}")
        if storage.shares_chunks:
            self._read_back |= {chunks[index] for index in indexes}

    # the old storages -------------------------------------------------------------------------------------------------

    def _remove_old(self, revisions: Sequence[str]) -> None:
        """Remove what only the converted ones of `revisions` have in the old storages; the caller holds `.purge`."""
        for section in self.repository.config.earlier_storages:
            for revision in [one for one in revisions if one not in self._result.failed]:
                self.repository.storages.made(section).remove(revision)

    def _give_up_old(self) -> None:
        """Remove all that the old storages have left, and name them no more; the caller holds `.purge` alone."""
        repository = self.repository
        self._remove_old([revision.id for revision in repository.records.history(trash=True)])
        while repository.config.earlier_storages:
            *others, section = repository.config.earlier_storages
            storage = repository.storages.made(section)
            if isinstance(storage, DisposableStorage):
                storage.dispose()
            else:
                storage.purge(())
            repository.write_config(msgspec.structs.replace(repository.config, earlier_storages=tuple(others)))


def _section(config: JobConfig, name: str, options: Config) -> StorageSection:
    """Return the section of the storage to convert to; raises ConfigError."""
    if there := [one for one in config.storages if one.type == name and not options]:
        return there[0]
    try:
        return StorageSection({"type": name, **options})
    except ValueError as error:
        raise ConfigError(f"storage: {error}") from error
