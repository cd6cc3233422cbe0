"""Writes the configuration of jobs into their repositories."""

from __future__ import annotations

from backy.errors import RepositoryError
from backy.repository.config import CONFIG, JobConfig
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from backy.scheduler.configuration.configuration import Configuration, JobEntry


def configure(configuration: Configuration, job: JobEntry) -> Repository:
    """Write the `config` of a job's repository, if it differs, and return the repository, which is created if missing.

    Format, id and creation time of an existing repository are kept.

    Raises:
        RepositoryError: the base directory is missing, or the repository has another version.
        ConfigError, PluginError, StorageError: a plugin refuses its section.
    """
    directory = configuration.repository(job)
    # The base directory is not created: if its disk is not mounted, backups would fill the one below.
    if not configuration.settings.base_dir.is_dir():
        raise RepositoryError(
            f"there is no folder {configuration.settings.base_dir}: is its disk mounted? A base-dir that is new is to "
            "be made by hand"
        )
    if not (directory / CONFIG).exists():
        # Without its parents, and not readable for others: it holds the data of guests.
        directory.mkdir(mode=0o750, exist_ok=True)
        return Repository.initialize(directory, _config(configuration, job, None))
    repository = Repository.open(directory)
    repository.configure(_config(configuration, job, repository.config))
    return repository


def _config(configuration: Configuration, job: JobEntry, existing: JobConfig | None) -> JobConfig:
    return JobConfig(
        format=existing.format if existing else FORMAT,
        id=existing.id if existing else None,
        created=existing.created if existing else None,
        source=job.source,
        storage=job.storage,
        verifier=job.verifier,
        schedule=dict(job.schedule),
        expire=job.expire,
        longest_outage=configuration.settings.longest_outage,
        hooks=configuration.hook_sections or None,
    )
