"""A repository: the directory in which everything of one job lies, and the plugins that its `config` names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from backy.api import Job, Source, Storage, Verifier
from backy.durable import replace_link, sync_folder, write_file
from backy.errors import DamageError, RepositoryError
from backy.image.chunkmap import ChunkMap
from backy.image.stored import StoredImage
from backy.plugins.discovery import Kind
from backy.repository.config import JobConfig, PluginSection, dump_job, load_job
from backy.repository.records import Records
from backy.repository.revision import Revision, utc_now
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
        """Open what `init` made.

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
        """Make a repository; the directory may exist, a repository in it may not.

        Raises:
            RepositoryError: there is one already, or revisions that this version can not read.
            ConfigError: a section is wrong for its plugin.
            StorageError: the storage can not work in this directory.
        """
        import shortuuid

        directory = directory.absolute()
        if (directory / CONFIG).exists():
            raise RepositoryError(f"{directory} has a repository already: its file 'config' is left as it is")
        made = {
            "id": config.id or shortuuid.uuid(),
            "created": config.created or utc_now().replace(microsecond=0),
        }
        repository = cls(directory, msgspec.structs.replace(config, **made))
        _, damaged = repository.records.survey()
        if damaged:
            raise RepositoryError(f"{directory} has revisions that this version can not read: {damaged[0]}")
        repository.check_plugins()
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        repository.storage().initialize()
        write_file(directory / CONFIG, dump_job(repository.config))
        return repository

    def configure(self, config: JobConfig) -> None:
        """Replace `config`, unless it says the same already.

        Another storage is for revisions to come; those that there are stay where they are, and the storage that the job
        had becomes the previous one, lest nobody knows of what it keeps once the last of them is gone.

        Raises:
            ConfigError, PluginError, StorageError: a plugin refuses its section; the file is left as it is.
            RepositoryError: it would be the third storage; the file is left as it is, too.
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
        """Make sure that the previous storage is not forgotten when the job's becomes the previous one."""
        present, previous = self.config.storage.type, self.config.previous_storage
        if previous is not None and previous.type not in (new, present):
            raise RepositoryError(
                f"{self.directory} has data in '{previous.type}' still, which it had before '{present}': "
                f"'backy convert --storage {present}' first, then change to '{new}'"
            )

    def write_config(self, config: JobConfig) -> None:
        """Replace `config`, whatever it says."""
        write_file(self.directory / CONFIG, dump_job(config))
        self.config = config
        self._storages.clear()

    @property
    def since(self) -> datetime:
        """When the job became known: it has to keep its SLA from then on."""
        return self.config.created or datetime.fromtimestamp((self.directory / CONFIG).stat().st_mtime, UTC)

    # plugins ----------------------------------------------------------------------------------------------------------

    def source(self) -> Source:
        """Make the job's source; raises ConfigError or PluginError."""
        from backy.plugins.loading import call

        section = self.config.source
        source: Source = call(Kind.SOURCE, section.type, "backy_source", config=section.written, job=self.job)
        return source

    def storage(self, name: str | None = None) -> Storage:
        """Make, once, the job's storage or the one called `name`, by which older revisions are kept.

        Raises:
            ConfigError: its section is wrong.
            PluginError: there is no such storage, or it is broken.
        """
        from backy.plugins.loading import call

        name = name or self.config.storage.type
        if name not in self._storages:
            sections = {section.type: section for section in self._storage_sections()}
            section = sections.get(name) or PluginSection.named(name)
            self._storages[name] = call(Kind.STORAGE, name, "backy_storage", config=section.written, job=self.job)
        return self._storages[name]

    def _storage_sections(self) -> list[PluginSection]:
        return [section for section in (self.config.storage, self.config.previous_storage) if section is not None]

    def storage_of(self, revision: Revision) -> Storage:
        """Make the storage that keeps a revision, which need not be the job's; raises ConfigError or PluginError."""
        return self.storage(revision.storage)

    def storages(self, revisions: Iterable[Revision]) -> dict[str, Storage]:
        """Make the job's storage and those that keep `revisions`, by name; raises ConfigError or PluginError."""
        names = {self.config.storage.type, *(revision.storage for revision in revisions)}
        return {name: self.storage(name) for name in sorted(names)}

    def verifier(self, default: str) -> Verifier:
        """Make the job's verifier, or the one named `default` if it chooses none; raises ConfigError or PluginError."""
        from backy.plugins.loading import call

        section = self.config.verifier or PluginSection.named(default)
        verifier: Verifier = call(Kind.VERIFIER, section.type, "backy_verifier", config=section.written, job=self.job)
        return verifier

    def check_plugins(self) -> None:
        """Let the plugins look at their sections; raises ConfigError or PluginError."""
        self.source()
        self.storage()
        if self.config.verifier is not None:
            self.verifier(self.config.verifier.type)

    # revisions --------------------------------------------------------------------------------------------------------

    def remove(self, revision_id: str) -> None:
        """Remove a revision: its record first, so that what is left after a crash is no revision.

        The map goes last, so that what is left is found; without a map the record does.
        """
        storages = self._all_storages(revision_id)
        files = [self.records.record_path(revision_id), self.records.map_path(revision_id)]
        if files[1].exists():
            files.pop(0).unlink(missing_ok=True)
            sync_folder(self.directory)
        for storage in storages:
            storage.remove(revision_id)
        for path in files:
            path.unlink(missing_ok=True)
        self.link_last()

    def _all_storages(self, revision_id: str) -> list[Storage]:
        """Make every storage that may have something of a revision, a copy of an interrupted conversion included."""
        names = {section.type for section in self._storage_sections()}
        names |= {revision.storage for revision in self.records.survey()[0] if revision.id == revision_id}
        return [self.storage(name) for name in sorted(names)]

    def link_last(self) -> None:
        """Let `last.rev`, and `last` where its image is raw, lead to the newest complete revision."""
        targets: dict[str, str | None] = {f"{LAST}.rev": None, LAST: None}
        for newest in [revision for revision in self.records.survey()[0] if revision.complete][-1:]:
            targets = {f"{LAST}.rev": f"{newest.id}.rev", LAST: newest.id if self.storage_of(newest).raw else None}
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
        """Open a revision for reading; purge waits meanwhile."""
        # under the lock the record is read anew: the revision may have been converted before it was taken
        with shared(self.directory, PURGE_LOCK), self.open_image(self.records.current(revision)) as image:
            yield image

    @contextmanager
    def open_image(self, revision: Revision, chunks: ChunkMap | None = None) -> Iterator[StoredImage]:
        """Open a revision for reading in the storage that its record names; the caller keeps purge from running.

        `chunks` is its map where that is in memory already, as that of a revision whose record is not complete yet.

        Raises:
            DamageError: the map is missing or damaged.
            ConfigError, PluginError: there is no such storage.
        """
        if chunks is None:
            chunks = self.records.read_map(revision)
        with self.storage_of(revision).open(revision.id) as reader:
            yield StoredImage(chunks, reader)

    def raw_path(self, revision: Revision) -> Path | None:
        """Return the file that is the raw image itself; None where images are stored otherwise.

        Raises:
            DamageError: it is missing, or has not the size of the image.
        """
        if not self.storage_of(revision).raw:
            return None
        path = self.directory / revision.id
        size = path.stat().st_size if path.is_file() else None
        if size != revision.size:
            found = "is missing" if size is None else f"has {size} bytes instead of {revision.size}"
            raise DamageError(f"the raw image {path} {found}")
        return path
