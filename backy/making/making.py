"""Makes a repository of what a command line names, and tries whether a storage can work in a folder."""

import logging
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import shortuuid

from backy.api import Config, Job, RecordKeepingStorage, Storage
from backy.config import typed
from backy.errors import BackyError, ConfigError, RepositoryError, SourceBusyError, StorageError, warned
from backy.plugins.discovery import Kind
from backy.plugins.loading import call
from backy.repository.config import CONFIG, JobConfig, SourceSection
from backy.repository.published import fetched
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from backy.system.safeyaml import parse_yaml

log = logging.getLogger(__name__)
PUBLISHED = ("format", "id", "storage", "schedule", "expire")
"""Keys of a published `config`."""

SECTIONS = ("hooks", "moment", "schedule", "source", "storage", "verifier")
"""The sections of `config` whose keys can be given."""
Settings = Mapping[str, Mapping[str, Any]]
"""Keys of sections, which take the place of those that plugins make of their arguments."""


def make_repository(
    directory: Path, source: str, argument: str, storage: str = "chunked", settings: Settings | None = None
) -> Repository:
    """Make a repository in `directory` that backs up what `argument` names for the source plugin `source`.

    A source that can not be opened is no error: it may be there when it is backed up. A warning is logged.

    Args:
        directory: The repository.
        source: The name of a source plugin.
        argument: What that plugin turns into its section.
        storage: NAME or NAME:ARGUMENT of a storage.
        settings: Further keys by section.

    Raises:
        PluginError: there is no such source or storage, or one argument can not name such a source.
        ConfigError: a plugin refuses its argument, or a section has a wrong key.
        RepositoryError: there is a repository already, or there are revisions that this version can not read.
        StorageError: the storage can not work in this directory.
    """
    # only the plugin knows the meaning of its argument, so it turns the argument into the keys of its section
    section = call(Kind.SOURCE, source, "backy_source_config", argument=argument)
    plain = {"format": FORMAT, "source": {"type": source, **section}, "storage": _storage(storage)}
    repository = Repository.initialize(directory, _configured(plain, settings or {}))
    # told now: the first backup may be days away; a source that is busy is used by a backup, so it can be opened
    with warned(log, "nothing can be backed up as it is", (BackyError, OSError)), suppress(SourceBusyError):
        _open_source(repository)
    return repository


def promote(directory: Path, source: str, argument: str) -> Repository:
    """Give a copy a source, so that it goes on by itself from where it was copied from; arguments as above.

    Raises:
        RepositoryError: it has a source already.
        RepositoryBusyError: another command writes to the repository.
        PluginError, ConfigError: there is no such source, or it refuses its argument.
    """
    repository = Repository.open(directory)
    if repository.config.source is not None:
        raise RepositoryError(f"{directory} is no copy: it backs up a source of type '{repository.config.source.type}'")
    section = SourceSection({"type": source, **call(Kind.SOURCE, source, "backy_source_config", argument=argument)})
    repository.configure(msgspec.structs.replace(repository.config, source=section))
    return repository


def _open_source(repository: Repository) -> None:
    """Open the source once, as a backup does; raise what a backup would."""
    # it ends by an exception, so that the source keeps nothing for a revision that there will never be
    with suppress(_SeenError), repository.locked(), repository.source().snapshot(shortuuid.uuid(), None):
        raise _SeenError


class _SeenError(Exception):
    """The source could be opened."""


def rebuild_repository(directory: Path, storage: str, settings: Settings | None = None) -> Repository:
    """Make the repository anew whose records a storage keeps; it has no source.

    Args:
        directory: The repository, which is made.
        storage: TYPE:ARGUMENT of the storage.
        settings: Further keys by section, such as the storage's credentials, which nobody publishes.

    Raises:
        PluginError: there is no such storage.
        ConfigError: it refuses its argument, keeps no records, or a section has a wrong key.
        DamageError: the published `config` is damaged.
        RepositoryError: there is a repository already.
        StorageError: no repository is published there, or the storage can not be reached.
    """
    settings = settings or {}
    section = {**_storage(storage), **settings.get("storage", {})}
    directory = directory.absolute()
    keeper = Repository(directory, _configured({"format": FORMAT, "storage": section}, {})).storages.own
    if not isinstance(keeper, RecordKeepingStorage):
        raise ConfigError(f"the storage '{section['type']}' keeps no records: nothing can be made of them")
    digest = keeper.published().get(CONFIG)
    plain = parse_yaml(fetched(keeper, CONFIG, digest), "the published config") if digest else None
    if not isinstance(plain, dict) or not isinstance(plain.get("storage"), dict):
        raise StorageError(f"there is no repository at {storage}")
    # no more than is published: whoever can write there must not choose plugins for this machine
    own = {key: value for key, value in plain["storage"].items() if key in {"type", "name"}}
    # what is given here reaches the store, and may be another address than before
    plain = {key: plain[key] for key in PUBLISHED if key in plain} | {"storage": {**own, **section}}
    return Repository.initialize(directory, _configured(plain, settings))


def sourceless(storage: str = "chunked", settings: Settings | None = None) -> JobConfig:
    """Return the `config` of a repository for copies, in which nothing is backed up and nothing expires.

    Raises:
        PluginError: there is no storage that NAME or NAME:ARGUMENT stands for.
        ConfigError: it refuses its argument, or a section has a wrong key.
    """
    return _configured({"format": FORMAT, "storage": _storage(storage)}, settings or {})


def _storage(text: str) -> Config:
    """Return the section `storage` that NAME or NAME:ARGUMENT stands for."""
    name, colon, argument = text.partition(":")
    return {"type": name, **(call(Kind.STORAGE, name, "backy_storage_config", argument=argument) if colon else {})}


def _configured(plain: dict[str, Any], settings: Settings) -> JobConfig:
    """Return plain sections as a `config`, with settings in them."""
    for section, keys in settings.items():
        if section not in SECTIONS:
            raise ConfigError(f"no section '{section}' takes options; these do: {', '.join(SECTIONS)}")
        plain[section] = {**(plain.get(section) or {}), **keys}
    return typed(plain, JobConfig, "config")


def try_storage(name: str, folder: Path) -> None:
    """Try a storage without options in a temporary folder of `folder`.

    Nothing is tried of one that keeps its data elsewhere.

    Raises:
        StorageError: it can not work there.
        PluginError, ConfigError: it is not installed, or wants options.
        OSError: nothing can be stored there.
    """
    with tempfile.TemporaryDirectory(prefix=".check-", dir=folder) as made:
        job = Job(folder.name, folder.name, Path(made), Path(made) / "store")
        storage: Storage = call(Kind.STORAGE, name, "backy_storage", config={"type": name}, job=job)
        # Storages of others may be far away: trying those would make a store there.
        if name == "chunked" or storage.raw:
            try:
                storage.initialize(shortuuid.uuid())
            except BackyError as error:
                raise StorageError(str(error).replace(made, str(folder))) from error
