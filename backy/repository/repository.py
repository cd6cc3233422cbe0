"""A repository: the directory with everything of one job, and the plugins that its `config` names."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import msgspec
import shortuuid

from backy.api import ChoosyStorage, Job, Source, Storage, Verifier
from backy.durable import read_file, refuse_links
from backy.errors import BackyError, ConfigError, DamageError, RepositoryBusyError, RepositoryError, StorageError
from backy.image.stored import ChunkMap, StoredImage
from backy.plugins.discovery import Kind
from backy.repository.config import CONFIG, JobConfig, PluginSection, StorageSection, load_job, write_job
from backy.repository.links import lead
from backy.repository.published import Published, reduced
from backy.repository.records import Records
from backy.repository.revision import Revision, utc_now
from backy.repository.running import end
from backy.repository.storages import Storages, threads_for
from backy.repository.uses import IN_USE
from backy.standalone.explain import README, explain
from backy.system.limits import Limit
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, exclusive, shared
from backy.system.space import reserve

log = logging.getLogger(__name__)


class Repository:
    """One job's directory: its `config`, its plugins, the links to its newest revision. `records` has the revisions."""

    def __init__(self, directory: Path, config: JobConfig) -> None:
        refuse_links(directory, "quarantine", IN_USE, *(section.folder for section in config.storages))
        self.directory = directory
        self.config = config
        self.records = Records(directory)
        self.job = Job(directory.name, config.id or directory.name, directory)
        self.storages = Storages(config, self._make_storage)
        self._published: list[Published] = []
        """What storages keep of the records, while `.backup` is held."""

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the repository in `directory`.

        Raises:
            RepositoryError: there is no repository, or one of another version.
            ConfigError: its `config` is wrong.
        """
        directory = directory.absolute()
        try:
            return cls(directory, load_job(directory / CONFIG))
        except (FileNotFoundError, NotADirectoryError):
            raise RepositoryError(f"{directory} is no repository: it has no 'config'; 'backy init' makes one") from None

    @classmethod
    def initialize(cls, directory: Path, config: JobConfig) -> Self:
        """Make a repository in `directory`, which may exist.

        Raises:
            RepositoryError: it has a repository already, or revisions that this version can not read.
            ConfigError: a section is wrong for its plugin.
            StorageError: the storage can not work in this directory.
        """
        directory = directory.absolute()
        if (directory / CONFIG).exists():
            raise RepositoryError(f"{directory} has a repository already: its file 'config' is left as it is")
        created = config.created or utc_now().replace(microsecond=0)
        repository = cls(directory, msgspec.structs.replace(config, id=config.id or shortuuid.uuid(), created=created))
        for error in repository.records.survey()[1]:
            raise RepositoryError(f"{directory} has revisions that this version can not read: {error}")
        repository.check_plugins()
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        # before the lock, which leaves a file: where the storage can not work, nothing is made
        repository.storages.begin()
        repository.records.journal.begin(repository.job.id)
        with repository.locked():
            if (directory / CONFIG).exists():
                raise RepositoryError(f"another command has just made a repository in {directory}")
            repository.explain()
            repository.link_last()
            # last, because `config` makes it a repository: after a crash, `init` can be run again
            write_job(directory / CONFIG, repository.config)
        return repository

    def configure(self, config: JobConfig) -> None:
        """Replace `config` by one that differs from it.

        Another storage is one in another folder. It gets the new revisions only. Existing ones stay in the old one,
        which is recorded in `earlier_storages` so that they are found there. What `config` has as such is ignored.

        Raises:
            RepositoryBusyError: another command holds `.backup`, and the file would change.
            ConfigError, PluginError, StorageError: a plugin refuses its section; the file is left as it is.
        """
        if self.config.replaced_by(config) == self.config:
            return
        with exclusive(self.directory, BACKUP_LOCK), self.records.recording():
            # a conversion may have written another one since this was read
            self._take(load_job(self.directory / CONFIG))
            changed = type(self)(self.directory, self.config.replaced_by(config))
            changed.check_plugins()
            self._prepare(changed)
            self.write_config(changed.config)

    def change_storage(self, storage: StorageSection) -> None:
        """Replace the section `storage` as `configure` does, without asking other plugins than storages."""
        changed = type(self)(self.directory, self.config.moved_to(storage))
        self._prepare(changed)
        if changed.config != self.config:
            self.write_config(changed.config)

    def _prepare(self, changed: Self) -> None:
        """Make the storage ready that `changed` has."""
        old, new = self.config.storage, changed.config.storage
        if new.folder != old.folder:
            changed.storages.begin()
        elif new != old:
            changed.storages.require_same_as(self.storages)

    def write_config(self, config: JobConfig) -> None:
        """Replace `config` without asking the plugins."""
        write_job(self.directory / CONFIG, config)
        self._take(config)
        self.explain()

    @contextmanager
    def locked(self, *, wait: bool = False, storing: bool = False, beside: bool = False) -> Iterator[None]:
        """Hold `.backup` and `.records`, and make records that are kept elsewhere like those here.

        If `wait` is true, wait for who holds `.backup`. A command that is not `storing` images may use up the reserve.
        One with others `beside` it, which forget revisions and change tags, takes `.records` for its own changes only.

        Raises:
            RepositoryBusyError: another command holds `.backup`, and `wait` is false.
            StorageError: a storage that keeps records can not be reached.
        """
        records = nullcontext() if beside else self.records.recording()
        with exclusive(self.directory, BACKUP_LOCK, wait=wait), records, self._prepared(storing=storing, beside=beside):
            yield

    @contextmanager
    def changing(self) -> Iterator[bool]:
        """Hold `.records` and, unless a backup runs, `.backup`; yield whether one runs. Else as `locked`."""
        with self.records.recording(wait=False), ExitStack() as held:
            running = True  # all others that hold it hold `.records` as well, or wait for it
            with suppress(RepositoryBusyError):
                held.enter_context(exclusive(self.directory, BACKUP_LOCK))
                running = False
            with self._prepared():
                yield running

    @contextmanager
    def _prepared(self, *, storing: bool = False, beside: bool = False) -> Iterator[None]:
        with reserve(self.directory, self.config.reserve, spend=not storing):
            try:
                with self.records.recording():
                    self.reconcile()
                yield
                self.publish_if_possible(again=beside)
            finally:
                self._published = []

    def reconcile(self, *, strict: bool = False) -> None:
        """Fetch the records that storages keep and that are missing here, and publish those that are missing there.

        The caller holds `.backup`.

        Args:
            strict: Whether all has to be known afterwards, as before a purge.

        Raises:
            StorageError: a storage can not be reached, or has the records of another repository.
            DamageError: a record is damaged there, and `strict` is true.
        """
        keepers = list(self.storages.record_keepers(self.require_store))
        self._published = [Published(self.records, storage, identity) for identity, storage in keepers]
        for published in self._published:
            published.require_own(self.job.id, reduced(self.config, self.job.id))
            published.fetch(strict=strict)
        self.publish(strict=strict)

    def publish(self, *, strict: bool = False) -> None:
        """Publish what has changed since `reconcile`; raises StorageError. The caller holds `.backup`."""
        for published in self._published:
            files = {}
            # an earlier storage keeps the ones that it has
            if published.identity == self.storages.identity:
                self.explain()
                files = {CONFIG: reduced(self.config, self.job.id), README: read_file(self.directory / README)}
            published.push(files, strict=strict)

    def publish_if_possible(self, *, again: bool = False) -> None:
        """Publish what has changed, or log why it can not: what a command did is done. The caller holds `.backup`.

        If `again` is true, others may have published meanwhile.
        """
        try:
            with self.records.recording():
                self.reconcile() if again else self.publish()
        except (BackyError, OSError) as error:
            log.warning("%s has changed, but can not be published; the next command does it: %s", self.directory, error)

    def published_records(self) -> set[str]:
        """Return the ids of the revisions whose records are kept elsewhere, too; the caller holds `.backup`."""
        return {revision_id for published in self._published for revision_id in published.records()}

    def explain(self) -> None:
        """Write `README` and the programs for those who have no backy, unless they are there."""
        explain(self.directory, self.storages.hints())

    def _take(self, config: JobConfig) -> None:
        """Go on with another configuration."""
        self.config = config
        # the old ones were made of the sections as they were
        self.storages = Storages(config, self._make_storage)

    # plugins ----------------------------------------------------------------------------------------------------------

    def source(self) -> Source:
        """Make the job's source; raises ConfigError, also if there is none, or PluginError."""
        if self.config.source is None:
            advice = "add a section to its 'config', such as 'source: {type: file, filename: /PATH}'"
            raise ConfigError(f"{self.directory} has no source, so there is nothing to back up; {advice}")
        source: Source = self.plugin(Kind.SOURCE, self.config.source)
        return source

    def storage(self, identity: str | None = None) -> Storage:
        """Return the storage with an identity, or the job's own.

        Raises:
            StorageError: `config` names none that has it.
            ConfigError: its section is wrong.
            PluginError: there is no such storage, or it is broken.
        """
        try:
            return self.storages.find(identity)
        except StorageError:
            # a conversion may have moved everything since `config` was read
            now = load_job(self.directory / CONFIG)
            if now.storages == self.config.storages:
                raise
            self._take(now)
            return self.storages.find(identity)

    def require_store(self) -> str:
        """Return the identity of the job's own store; make a store if there is none and no revision misses it.

        Raises:
            StorageError: there is no store, and the data of revisions was there or may have been.
            ConfigError, PluginError: the storage can not be made.
        """
        try:
            return self.storages.identity
        except StorageError:
            # somebody has chosen the storage by hand; but it may also have lost its marker, and must not become another
            # store while revisions look for it
            sound, damaged = self.records.survey(trash=True)
            # where a state is lost, nobody knows which store has the data
            if damaged or any(revision.storage is None for revision in sound):
                raise
            for revision in sound:
                self.storages.find(revision.storage)
            self.storages.begin()
            return self.storages.identity

    def _make_storage(self, section: StorageSection) -> Storage:
        job = replace(self.job, store=self.directory / section.folder)
        return self.plugin(Kind.STORAGE, section, job)  # type: ignore[no-any-return]  # by its kind

    def verifiers(self, default: str) -> list[Verifier]:
        """Make the verifiers of the job, or else the one that its storage names, or else `default`.

        Raises:
            ConfigError, PluginError: one can not be made.
        """
        storage = self.storages.own
        # the storage before the source: a source knows what is likely to differ, a storage what it costs to read
        default = (storage.verifier if isinstance(storage, ChoosyStorage) else None) or default
        return [self.plugin(Kind.VERIFIER, one) for one in self.config.verifier or (PluginSection.named(default),)]

    def plugin(self, kind: Kind, section: PluginSection, job: Job | None = None) -> Any:  # noqa: ANN401  # the kind decides the type
        """Make the plugin of a section; raises ConfigError or PluginError."""
        from backy.plugins.loading import call  # here: commands that need no plugin, as `tags`, need not load pluggy

        return call(kind, section.type, f"backy_{kind.word}", config=section.options, job=job or self.job)

    def check_plugins(self) -> None:
        """Have the plugins check their sections; raises ConfigError or PluginError."""
        if self.config.source is not None:
            self.source()
        if self.config.moment is not None:
            self.plugin(Kind.MOMENT, self.config.moment)
        self.verifiers("full")  # makes the storage as well

    # revisions --------------------------------------------------------------------------------------------------------

    def store_of(self, revision: Revision) -> str:
        """Return the identity of the storage that has a revision's data; raises as `Storages.identity`."""
        # of a revision whose state is lost, nobody knows more than what `config` says
        return revision.storage or self.storages.identity

    def remove(self, revision_id: str, act: str = "remove", note: str | None = None) -> None:
        """Remove a revision, complete or not, and the data that it has alone; the caller holds `.backup`.

        The journal gets `act` and `note` if it was complete.
        """
        # all, because an interrupted conversion may have left a copy; no identity is asked, so that a revision whose
        # storage is gone can be forgotten
        storages = self.storages.all()
        for published in self._published:
            published.withdraw(revision_id)
        self.records.remove(revision_id, act, note)
        for storage in storages:
            storage.remove(revision_id)
        beside = self.records.state_path(revision_id), self.records.attachments_path(revision_id)
        for path in (*self.records.drill_paths(revision_id), *beside, self.records.map_path(revision_id)):
            path.unlink(missing_ok=True)
        end(self.directory, revision_id)
        self.unlink(revision_id)

    def unlink(self, revision_id: str) -> None:
        """Point the links at another revision, unless they do already: then no record need be read."""
        if self.records.linked() in {revision_id, None}:
            self.link_last()

    def link_last(self, newest: Revision | None = None) -> None:
        """Point `last.rev`, and `last` if its image is raw, at `newest`; None stands for the newest of the records."""
        lead(self.records, self.storage, newest)

    # images -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def image(self, revision: Revision) -> Iterator[StoredImage]:
        """Open a revision for reading; no purge runs meanwhile."""
        # the record is read again under the lock: a conversion may have moved the revision before
        with shared(self.directory, PURGE_LOCK), self.open_image(self.records.current(revision)) as image:
            yield image

    def limits(self, *names: str) -> list[Limit]:
        """Return the limits of rate of what is done or read from, which the repositories of a base directory share."""
        rates = {name: self.config.limits[name] for name in names if self.config.limits.get(name)}
        return [Limit(rate, self.job.base / f".rate-{quote(name, safe='')}") for name, rate in rates.items()]

    def open_image(self, revision: Revision, chunks: ChunkMap | None = None) -> AbstractContextManager[StoredImage]:
        """Open a revision for reading in the storage that its state names; the caller holds `.purge`.

        Args:
            revision: The revision.
            chunks: Its map if that is in memory already.

        Raises:
            DamageError: the map is missing or damaged.
            StorageError: no store that `config` names has the identity that the revision's state names.
            ConfigError, PluginError: the storage can not be made.
        """
        if chunks is None:
            chunks = self.records.read_map(revision)
        return self.open_stored(revision.id, chunks, revision.storage)

    @contextmanager
    def open_stored(self, revision_id: str, chunks: ChunkMap, storage: str | None = None) -> Iterator[StoredImage]:
        """Open what the storage with this identity, the job's own by default, has of a revision, complete or not."""
        found = self.storage(storage)
        with found.open(revision_id) as reader:
            yield StoredImage(chunks, reader, threads_for(found))

    def raw_path(self, revision: Revision) -> Path | None:
        """Return the path of the raw image of a revision; None if its storage keeps no raw images.

        Raises:
            DamageError: the file is missing, or its size is not that of the image.
            StorageError: no store that `config` names has the identity that the revision's state names.
        """
        if not self.storage(revision.storage).raw:
            return None
        path = self.directory / revision.id
        size = path.stat().st_size if path.is_file() and not path.is_symlink() else None
        if size != revision.size:
            found = "is missing" if size is None else f"has {size} bytes instead of {revision.size}"
            raise DamageError(f"the raw image {path} {found}")
        return path
