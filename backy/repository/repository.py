"""A repository: the directory with everything of one job, and the plugins that its `config` names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec

from backy.api import Job, Source, Storage, Verifier
from backy.durable import replace_link, sync_folder, write_file
from backy.errors import DamageError, RepositoryError
from backy.image.chunkmap import ChunkMap
from backy.image.stored import StoredImage
from backy.plugins.discovery import Kind
from backy.repository.config import JobConfig, PluginSection, VerifierSections, dump_job, load_job
from backy.repository.records import LAST_RECORD, Records
from backy.repository.revision import Revision, utc_now
from backy.repository.running import end
from backy.system.locking import PURGE_LOCK, shared

CONFIG = "config"
LAST = "last"


class Repository:
    """One job's directory: its `config`, its plugins, the links to its newest revision. `records` has the revisions."""

    def __init__(self, directory: Path, config: JobConfig) -> None:
        self.directory = directory
        self.config = config
        self.records = Records(directory)
        self.job = Job(directory.name, config.id or directory.name, directory)
        self._storages: dict[str, Storage] = {}

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
            raise RepositoryError(
                f"{directory} is no repository: it has no file 'config'; 'backy init' makes one"
            ) from None

    @classmethod
    def initialize(cls, directory: Path, config: JobConfig) -> Self:
        """Make a repository in `directory`, which may exist.

        Raises:
            RepositoryError: it has a repository already, or revisions that this version can not read.
            ConfigError: a section is wrong for its plugin.
            StorageError: the storage can not work in this directory.
        """
        import shortuuid

        directory = directory.absolute()
        if (directory / CONFIG).exists():
            raise RepositoryError(f"{directory} has a repository already: its file 'config' is left as it is")
        created = config.created or utc_now().replace(microsecond=0)
        repository = cls(directory, msgspec.structs.replace(config, id=config.id or shortuuid.uuid(), created=created))
        for error in repository.records.survey()[1]:
            raise RepositoryError(f"{directory} has revisions that this version can not read: {error}")
        repository.check_plugins()
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        repository.storage().initialize()
        # last, because `config` makes it a repository: after a crash, `init` can be run again
        write_file(directory / CONFIG, dump_job(repository.config))
        return repository

    def configure(self, config: JobConfig) -> None:
        """Replace `config` by one that differs from it.

        A changed storage applies to new revisions only. Existing ones stay in the old storage, recorded as
        `previous_storage` so that purge still finds its data.

        Raises:
            ConfigError, PluginError, StorageError: a plugin refuses its section; the file is left as it is.
            RepositoryError: data would be in three storages; the file is left as it is.
        """
        if config == self.config:
            return
        moved = config.storage.type != self.config.storage.type
        if moved:
            self._check_previous(config.storage.type)
            config = msgspec.structs.replace(config, previous_storage=self.config.storage)
        changed = type(self)(self.directory, config)
        changed.check_plugins()
        if moved:
            changed.storage().initialize()
        self.write_config(config)

    def _check_previous(self, new: str) -> None:
        """Refuse a change of the storage to `new` that would lose the previous storage from `config`."""
        present, previous = self.config.storage.type, self.config.previous_storage
        if previous is not None and previous.type not in (new, present):
            raise RepositoryError(
                f"{self.directory} has data in '{previous.type}' still, which it had before '{present}': "
                f"'backy convert --storage {present}' first, then change to '{new}'"
            )

    def write_config(self, config: JobConfig) -> None:
        """Replace `config` without asking the plugins."""
        write_file(self.directory / CONFIG, dump_job(config))
        self.config = config
        # they were made of the sections as they were
        self._storages.clear()

    @property
    def since(self) -> datetime:
        """When the job became known; it has to keep its SLA from then on."""
        return self.config.created or datetime.fromtimestamp((self.directory / CONFIG).stat().st_mtime, UTC)

    # plugins ----------------------------------------------------------------------------------------------------------

    def source(self) -> Source:
        """Make the job's source; raises ConfigError or PluginError."""
        source: Source = self._make(Kind.SOURCE, self.config.source)
        return source

    def storage(self, name: str | None = None) -> Storage:
        """Make the storage `name`, or the job's own, once.

        Raises:
            ConfigError: its section is wrong.
            PluginError: there is no such storage, or it is broken.
        """
        name = name or self.config.storage.type
        if name not in self._storages:
            # a storage that is neither the job's nor the previous one has no section any more
            sections = {section.type: section for section in self._storage_sections()}
            self._storages[name] = self._make(Kind.STORAGE, sections.get(name) or PluginSection.named(name))
        return self._storages[name]

    def _storage_sections(self) -> list[PluginSection]:
        return [section for section in (self.config.storage, self.config.previous_storage) if section is not None]

    def storages(self, revisions: Iterable[Revision]) -> dict[str, Storage]:
        """Make the job's storage and those that keep `revisions`, by name; raises ConfigError or PluginError."""
        names = {self.config.storage.type, *(self.storage_name(revision) for revision in revisions)}
        return {name: self.storage(name) for name in sorted(names)}

    def verifiers(self, default: str) -> list[Verifier]:
        """Make the job's verifiers, or that named `default` if it chooses none; raises ConfigError or PluginError."""
        chosen = self.config.verifier or VerifierSections.named(default)
        return [self._make(Kind.VERIFIER, section) for section in chosen.sections]

    def _make(self, kind: Kind, section: PluginSection) -> Any:  # noqa: ANN401  # the kind decides the type
        # not above: commands that need no plugin, such as `tags`, need not load pluggy
        from backy.plugins.loading import call

        return call(kind, section.type, f"backy_{kind.word}", config=section.written, job=self.job)

    def check_plugins(self) -> None:
        """Have the plugins check their sections; raises ConfigError or PluginError."""
        self.source()
        self.storage()
        if self.config.verifier is not None:
            self.verifiers("full")

    # revisions --------------------------------------------------------------------------------------------------------

    def storage_name(self, revision: Revision) -> str:
        """Return the name of the storage that has a revision's data."""
        # of a revision whose state is lost, nobody knows more than what `config` says
        return revision.storage or self.config.storage.type

    def remove(self, revision_id: str) -> None:
        """Remove a revision and the data that is stored for it alone; the caller holds `.backup`."""
        storages = [self.storage(name) for name in sorted(self._storages_of(revision_id))]
        # the record goes first: from then on there is no revision, but a trace of the rest, by which it is cleaned up
        record = self.records.record_path(revision_id)
        if record.exists():
            record.unlink()
            sync_folder(self.directory)
        for storage in storages:
            storage.remove(revision_id)
        self.records.state_path(revision_id).unlink(missing_ok=True)
        self.records.map_path(revision_id).unlink(missing_ok=True)
        end(self.directory, revision_id)
        self.link_last()

    def _storages_of(self, revision_id: str) -> set[str]:
        """Return the names of all storages that may have data of a revision."""
        # the previous storage, too: it may have a copy of an interrupted conversion
        names = {section.type for section in self._storage_sections()}
        with suppress(DamageError):
            names.add(self.records.read_state(revision_id).storage or self.config.storage.type)
        return names

    def link_last(self, newest: Revision | None = None) -> None:
        """Point `last.rev`, and `last` if its image is raw, at the newest revision.

        Args:
            newest: The newest revision if the caller knows it; None to find it in the records.
        """
        if newest is None:
            sound, damaged = self.records.survey()
            # a link to a damaged record is all that tells that it is the newest one
            if self.records.linked() in {error.revision_id for error in damaged}:
                return
            if self.records.doubt(sound, damaged) is None:
                newest = sound[-1] if sound else None
        targets: dict[str, str | None] = {LAST_RECORD: None, LAST: None}
        if newest is not None:
            raw = self.storage(self.storage_name(newest)).raw
            targets = {LAST_RECORD: self.records.record_path(newest.id).name, LAST: newest.id if raw else None}
        for name, target in targets.items():
            link = self.directory / name
            if target is None:
                if link.is_symlink():
                    link.unlink()
            elif not link.is_symlink() or str(link.readlink()) != target:
                replace_link(link, target)

    # images -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def image(self, revision: Revision) -> Iterator[StoredImage]:
        """Open a revision for reading; no purge runs meanwhile."""
        # the record is read again under the lock: a conversion may have moved the revision before
        with shared(self.directory, PURGE_LOCK), self.open_image(self.records.current(revision)) as image:
            yield image

    @contextmanager
    def open_image(self, revision: Revision, chunks: ChunkMap | None = None) -> Iterator[StoredImage]:
        """Open a revision for reading in the storage that its state names; the caller holds `.purge`.

        Args:
            revision: The revision.
            chunks: Its map if that is in memory already.

        Raises:
            DamageError: the map is missing or damaged.
            ConfigError, PluginError: there is no such storage.
        """
        if chunks is None:
            chunks = self.records.read_map(revision)
        with self.open_stored(revision.id, chunks, self.storage_name(revision)) as image:
            yield image

    @contextmanager
    def open_stored(self, revision_id: str, chunks: ChunkMap, storage: str | None = None) -> Iterator[StoredImage]:
        """Open what a storage, by default the job's own, has of a revision that need not be complete."""
        with self.storage(storage).open(revision_id) as reader:
            yield StoredImage(chunks, reader)

    def raw_path(self, revision: Revision) -> Path | None:
        """Return the path of the raw image of a revision; None if its storage keeps no raw images.

        Raises:
            DamageError: the file is missing, or its size is not that of the image.
        """
        if not self.storage(self.storage_name(revision)).raw:
            return None
        path = self.directory / revision.id
        size = path.stat().st_size if path.is_file() else None
        if size != revision.size:
            found = "is missing" if size is None else f"has {size} bytes instead of {revision.size}"
            raise DamageError(f"the raw image {path} {found}")
        return path
