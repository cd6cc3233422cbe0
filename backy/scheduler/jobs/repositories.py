"""Gives the repositories of jobs their configuration.

The scheduler compares and a child of it writes, because plugins have to accept what is written: one that hangs, or that
ends its process, must not harm the scheduler.
"""

import logging
from pathlib import Path
from typing import TypeVar

import msgspec
import shortuuid

from backy.config import typed
from backy.errors import RepositoryError
from backy.groups.config import DISKS, GroupConfig, load_group
from backy.groups.group import Group
from backy.repository.config import CONFIG, JobConfig, dump_job, write_job
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.scheduler.configuration.configuration import JobEntry
from backy.system.safeyaml import parse_yaml


def pending(job: JobEntry) -> bytes | None:
    """Make the folder of a job's repository if it is missing, and return the `config` to `configure` it with.

    That is None if the repository has it already. No plugin is loaded.

    Raises:
        RepositoryError: the base directory is missing, or the repository has another version.
        ConfigError: the present `config` is wrong.
    """
    base = job.directory.parent
    # The base directory is not created: if its disk is not mounted, backups would fill the one below.
    if not base.is_dir():
        text = f"there is no folder {base}: is its disk mounted? A base-dir that is new is to be made by hand"
        raise RepositoryError(text)
    # Without its parents, and not readable for others: it holds the data of guests.
    job.directory.mkdir(mode=0o750, exist_ok=True)
    if isinstance(job.config, GroupConfig):
        group = load_group(job.directory / CONFIG)
        is_there = group is not None and group == _kept(group, job.config)
    elif is_there := (job.directory / CONFIG).exists():
        present = _open(job.directory).config
        is_there = present.replaced_by(_kept(present, job.config)) == present
    return None if is_there else dump_job(job.config)


log = logging.getLogger(__name__)
_Config = TypeVar("_Config", bound=JobConfig)


def configure(directory: Path, content: bytes) -> Repository | Group:
    """Give a repository the `config` that `pending` has returned, and return the repository, which is made if missing.

    Format, id and creation time of an existing repository are kept. What has `disks` is a group of repositories.

    Raises:
        RepositoryError: the repository has another version.
        RepositoryBusyError: another command changes the repository.
        ConfigError, PluginError, StorageError: a plugin refuses its section.
    """
    plain = parse_yaml(content, "standard input")
    if isinstance(plain, dict) and DISKS in plain:
        return _configure_group(directory, typed(plain, GroupConfig, "config"))
    wanted = typed(plain, JobConfig, "config")
    if not (directory / CONFIG).exists():
        return Repository.initialize(directory, wanted)
    repository = _open(directory)
    before = repository.config.storage
    repository.configure(_kept(repository.config, wanted))
    if wanted.storage.folder != before.folder:
        text = "new revisions are kept by '%s' from now on; those in '%s' stay there until 'backy convert' moves them"
        log.warning(text, wanted.storage.type, before.type)
    return repository


def _open(directory: Path) -> Repository:
    if load_group(directory / CONFIG):
        text = "choose another name for a job with one 'source', or move it away"
        raise RepositoryError(f"{directory} has disks of one machine: {text}")
    return Repository.open(directory)


def _configure_group(directory: Path, wanted: GroupConfig) -> Group:
    """Give a group its `config`."""
    present = load_group(directory / CONFIG)
    if present is None and (directory / CONFIG).exists():
        text = f"{directory} is the repository of one image"
        raise RepositoryError(f"{text}: choose another name for a job with 'disks', or move it away")
    new = msgspec.structs.replace(wanted, id=shortuuid.uuid(), created=utc_now().replace(microsecond=0))
    wanted = _kept(present or new, wanted)
    if wanted != present:
        with Group(directory, wanted).alone():
            write_job(directory / CONFIG, wanted)
    return Group(directory, wanted)


def _kept(present: JobConfig, wanted: _Config) -> _Config:
    """Return a configuration with what identifies the repository that has the present one."""
    return msgspec.structs.replace(wanted, format=present.format, id=present.id, created=present.created)
