"""A group: the repositories of the disks of one machine, and which of their revisions belong together."""

import logging
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from backy.api import Job
from backy.durable import names_in
from backy.errors import ConfigError, DamageError, RecordDamageError, RepositoryError
from backy.groups.config import GroupConfig, load_group
from backy.groups.together import Together
from backy.repository.config import CONFIG
from backy.repository.journal.journal import JOURNAL
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Revision, select
from backy.system.locking import BACKUP_LOCK, exclusive
from backy.text.phrases import local_time

log = logging.getLogger(__name__)


class Group:
    """A directory with the repositories of the disks of one machine."""

    def __init__(self, directory: Path, config: GroupConfig) -> None:
        self.directory = directory
        self.config = config
        self.job = Job(directory.name, config.id or directory.name, directory)

    def names(self) -> list[str]:
        """Return the names of all disks that have a repository: those of `config`, and what the machine has no more."""
        found = sorted(name for name in names_in(self.directory) if (self.directory / name / CONFIG).is_file())
        return [
            *filter(found.__contains__, self.config.disks),
            *(name for name in found if name not in self.config.disks),
        ]

    def repository(self, name: str) -> Repository:
        """Open the repository of a disk; raises as `Repository.open`."""
        repository = Repository.open(self.directory / name)
        # plugins are told of the machine, too
        repository.job = replace(repository.job, name=f"{self.directory.name}/{name}")
        return repository

    def survey(self) -> tuple[list[Together], list[Together], list[RecordDamageError]]:
        """Return the groups whose disks are all there, the oldest first, what is in use of others, and damage.

        Those in the trash are with the first ones. What a backup is still making, or left when it was killed, is none.
        """
        found: dict[str, dict[str, Revision]] = {}
        damaged: list[RecordDamageError] = []
        for name in self.names():
            sound, broken = Records(self.directory / name).survey(trash=True)
            damaged += broken
            for revision in sound:
                if revision.group:
                    found.setdefault(revision.group.id, {})[name] = revision
        every = [_in_order(members) for members in found.values()]
        whole = sorted((one for one in every if one.is_whole), key=lambda one: one.revision.order)
        return whole, [one for one in every if not one.is_whole and False in one.forgotten], damaged

    def together(self, *, trash: bool = False) -> list[Together]:
        """Return the groups in use, or those in the trash; of both, only those whose disks are all there."""
        return [one for one in self.survey()[0] if one.forgotten == {trash}]

    def history(self) -> list[Revision]:
        """Return what stands for each group in use, the oldest first."""
        return [one.revision for one in self.together()]

    def select(self, specification: str) -> Together:
        """Return the group that SPEC names; log a warning if nobody should rely on it.

        Raises:
            RevisionNotFoundError: there is none.
            DamageError: SPEC is no full id, and the source had another image, or what is newer is not whole.
        """
        everything, partial, damaged = self.survey()
        groups = [one for one in everything if one.forgotten == {False}]
        # 'last', a number or a tag may mean what is not there as a whole
        if specification not in {one.id for one in groups} and (doubt := self._doubt(groups, partial, damaged)):
            raise DamageError(doubt)
        chosen = select([one.revision for one in groups], specification)
        if chosen.state.wrong and specification != chosen.id:
            raise DamageError(f"{chosen.doubt}; -r {chosen.id} takes it as it is")
        if chosen.doubtful:
            log.warning("%s", chosen.doubt)
        return next(one for one in groups if one.id == chosen.id)

    def _doubt(self, groups: list[Together], partial: list[Together], damaged: list[RecordDamageError]) -> str | None:
        """Return why nobody can tell which group is the newest; None if it is the last one of `groups`."""
        newest = groups[-1].revision if groups else None
        later = [one for one in partial if newest is None or one.revision.order > newest.order]
        problem = next((one.lacking for one in later), None)
        # the order of a damaged record is not known, if no other disk tells it: only a link tells which is the newest
        lost = [error for error in damaged if error.revision_id not in {one.id for one in partial}]
        if lost and (
            newest is None or all(Records(self.directory / name).linked() != newest.id for name in self.names())
        ):
            problem = problem or str(lost[0])
        older = f"-r {newest.id} restores the state of {local_time(newest.timestamp, zone=True)}" if newest else ""
        return problem and f"{problem}; {older or 'there is no other'}"

    def alone(self) -> AbstractContextManager[None]:
        """Return what keeps other commands away that change the group; entering it raises RepositoryBusyError."""
        return exclusive(self.directory, BACKUP_LOCK)


def _in_order(members: dict[str, Revision]) -> Together:
    group = next(iter(members.values())).group
    return Together({name: members[name] for name in (group.disks if group else ()) if name in members} or members)


def opened(directory: Path) -> Group | None:
    """Open the group in `directory`; return None if there is none. Raises ConfigError."""
    directory = directory.absolute()
    config = load_group(directory / CONFIG)
    if config is not None and (directory / JOURNAL).exists():
        raise ConfigError(f"{directory} has revisions of one image: give the job with 'disks' another directory")
    return None if config is None else Group(directory, config)


def require(directory: Path) -> Group:
    """Open the group in `directory`; raises RepositoryError if there is none, or ConfigError."""
    group = opened(directory)
    if group is None:
        raise RepositoryError(f"{directory} has no disks of one machine: its 'config' has no key 'disks'")
    return group
