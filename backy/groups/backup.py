"""Backs up all disks of a machine at one instant.

The backups of all disks go on stage by stage. First all begin, which takes time; then all snapshots are made, within
one moment; then the disks are transferred, one after the other. Records are written when all are stored and verified:
so no source drops what the next backup needs because another disk fails.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import datetime

import msgspec
import shortuuid

from backy.api import Moment
from backy.backup.backup import Backup
from backy.backup.rest import Rest, Stages
from backy.errors import BackyError
from backy.groups.group import Group, Together
from backy.groups.retention import clean_up
from backy.plugins.discovery import Kind
from backy.plugins.loading import call
from backy.repository.config import CONFIG
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Group as Disks
from backy.repository.revision import utc_now
from backy.repository.running import begin, end, last_number, use_number
from backy.system.progress import Steps, quiet

log = logging.getLogger(__name__)


def backup(
    group: Group, tags: tuple[str, ...], clock: Callable[[], datetime] = utc_now, steps: Steps = quiet
) -> Together:
    """Make a revision of each disk, all of one instant, and return them.

    Raises:
        RepositoryBusyError, SourceBusyError: another command uses the group or one of its disks.
        BackyError, OSError: anything else; no disk has a new revision.
    """
    with group.alone():
        clean_up(group)
        repositories = {name: _configured(group, name) for name in group.config.disks}
        disks, moment, rest = Disks(shortuuid.uuid(), tuple(repositories)), _moment(group), Rest()
        backups = {
            name: Backup(one, tags, clock=clock, steps=steps, revision_id=disks.id, group=disks, rest=rest)
            for name, one in repositories.items()
        }
        _number(group)
        # durable before the first record: it tells what to remove if the others never come
        begin(group.directory, disks)
        try:
            _run({name: one.stages() for name, one in backups.items()}, rest.during(moment))
        except BaseException:
            # else the next backup does it
            with suppress(BackyError, OSError):
                clean_up(group)
            raise
        end(group.directory, disks.id)
    return Together({name: one.revision for name, one in backups.items()})


def _run(backups: Mapping[str, Stages], moment: AbstractContextManager[None]) -> None:
    """Have all backups come to an end, or none."""
    try:
        _go_on(backups)
        with moment:
            _go_on(backups)  # to the snapshots
        _go_on(backups)  # all is stored and verified
        _go_on(backups)  # the records are there
        _go_on(backups)
    except BaseException as error:
        for one in backups.values():
            # each removes what it has, and fails as the first one did
            with suppress(BaseException):
                one.throw(error)
        raise


def _go_on(backups: Mapping[str, Stages]) -> None:
    """Have all backups come to their next stage; the error of one begins with the name of its disk."""
    for name, one in backups.items():
        try:
            next(one, None)
        except BackyError as error:
            error.args = (f"{name}: {error}",)
            raise


def _moment(group: Group) -> AbstractContextManager[Moment] | None:
    """Make what brings the machine to rest; raises ConfigError or PluginError."""
    section = group.config.moment
    if section is None:
        if len(group.config.disks) > 1:
            log.warning("nothing brings the machine to rest, so its disks may be of different instants: add a 'moment'")
        return None
    return call(Kind.MOMENT, section.type, "backy_moment", config=section.options, job=group.job)  # type: ignore[no-any-return]  # by its kind


def _configured(group: Group, name: str) -> Repository:
    """Give the repository of a disk its `config`, and return it; make it if it is missing."""
    directory, wanted = group.directory / name, group.config.of(name)
    if not (directory / CONFIG).exists():
        Repository.initialize(directory, wanted)
    repository = group.repository(name)
    present = repository.config
    repository.configure(msgspec.structs.replace(wanted, id=present.id, created=present.created))
    return repository


def _number(group: Group) -> None:
    """Have the next revisions of all disks get the same number."""
    directories = [group.directory / name for name in group.names()]
    used = [one.seq for directory in directories for one in Records(directory).survey(trash=True)[0]]
    greatest = max([*used, *map(last_number, directories)])
    for directory in directories:
        use_number(directory, greatest)
