"""A group: the repositories of the disks of one machine, and which of their revisions belong together."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from backy.api import Job
from backy.durable import names_in
from backy.errors import DamageError, RecordDamageError, RepositoryError
from backy.groups.config import GroupConfig, load_group
from backy.repository.config import CONFIG
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Revision, select
from backy.system.locking import BACKUP_LOCK, exclusive

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Together:
    """The revisions of all disks of a machine of one instant. They have the same id, number and tags."""

    members: dict[str, Revision]
    """The revisions by the names of the disks, in the order of the group."""

    @property
    def revision(self) -> Revision:
        """The revision that stands for all: one that is in doubt if there is one, with the tags of all."""
        revisions = [*self.members.values()]
        # a pin of one disk holds all of them
        tags = tuple(sorted({tag for one in revisions for tag in one.tags}))
        found = next((one for one in revisions if one.doubtful), revisions[0])
        return found if found.tags == tags else found.changed(tags=tags)

    @property
    def id(self) -> str:
        """The id."""
        return self.revision.id

    @property
    def is_whole(self) -> bool:
        """Whether no disk is missing."""
        return all(one.group and self.members.keys() >= {*one.group.disks} for one in self.members.values())

    @property
    def forgotten(self) -> set[bool]:
        """Whether its revisions are in the trash: both if some are."""
        return {bool(one.state.forgotten) for one in self.members.values()}

    @property
    def consistency(self) -> str:
        """The worst of what its images are like."""
        found = {one.consistency for one in self.members.values()}
        return next(word for word in ("none", "unknown", "crash", "guest") if word in found)


class Group:
    """A directory with the repositories of the disks of one machine."""

    def __init__(self, directory: Path, config: GroupConfig) -> None:
        self.directory = directory
        self.config = config
        self.job = Job(directory.name, config.id or directory.name, directory)

    def names(self) -> list[str]:
        """Return the names of all disks that have a repository, also those that the machine has no more."""
        return sorted(name for name in names_in(self.directory) if (self.directory / name / CONFIG).is_file())

    def repository(self, name: str) -> Repository:
        """Open the repository of a disk; raises as `Repository.open`."""
        repository = Repository.open(self.directory / name)
        # plugins are told of the machine, too
        repository.job = replace(repository.job, name=f"{self.directory.name}/{name}")
        return repository

    def survey(self) -> tuple[list[Together], list[Together], list[RecordDamageError]]:
        """Return the groups whose disks are all there, the oldest first, what is there of others, and damage.

        Those in the trash are with the first ones.
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
        return whole, [one for one in every if not one.is_whole], damaged

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
            DamageError: the source had another image, and SPEC is no full id.
        """
        groups = self.together()
        chosen = select([one.revision for one in groups], specification)
        if chosen.state.wrong and specification != chosen.id:
            raise DamageError(f"{chosen.doubt}; -r {chosen.id} takes it as it is")
        if chosen.doubtful:
            log.warning("%s", chosen.doubt)
        return next(one for one in groups if one.id == chosen.id)

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
    return None if config is None else Group(directory, config)


def require(directory: Path) -> Group:
    """Open the group in `directory`; raises RepositoryError if there is none, or ConfigError."""
    group = opened(directory)
    if group is None:
        raise RepositoryError(f"{directory} has no disks of one machine: its 'config' has no key 'disks'")
    return group
