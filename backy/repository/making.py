"""Make a repository for a source that is named as on the command line."""

from __future__ import annotations

from pathlib import Path

from backy.plugins.discovery import Kind
from backy.plugins.loading import call
from backy.repository.config import JobConfig, PluginSection, StorageSection
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT


def make_repository(directory: Path, source: str, argument: str, storage: str = "chunked") -> Repository:
    """Make a repository in `directory` that backs up what `argument` names for the source plugin `source`.

    Raises:
        PluginError: there is no such source or storage, or one argument can not name such a source.
        ConfigError: the plugin refuses the argument.
        RepositoryError: there is a repository already, or there are revisions that this version can not read.
        StorageError: the storage can not work in this directory.
    """
    # only the plugin knows the meaning of its argument, so it turns the argument into the keys of its section
    section = call(Kind.SOURCE, source, "backy_source_config", argument=argument)
    chosen = PluginSection({"type": source, **section})
    job = JobConfig(format=FORMAT, source=chosen, storage=StorageSection.named(storage))
    return Repository.initialize(directory, job)
