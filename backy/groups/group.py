"""A group: the repositories of the disks of one machine, which of their revisions belong together, and attachments."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from backy.api import ATTACHMENT_PATTERN, Job, Statistics, Verification
from backy.durable import names_in, read_file, write_file
from backy.errors import ConfigError, DamageError, RecordDamageError, RepositoryError, TargetError
from backy.repository.attachments import read
from backy.repository.config import CONFIG, GroupConfig, load_group
from backy.repository.journal import JOURNAL
from backy.repository.records import Records, instead
from backy.repository.repository import Repository
from backy.repository.revision import Disks, Revision, select, utc_now
from backy.repository.running import begun, end, running_path
from backy.repository.uses import uses
from backy.retention.purge import discard
from backy.system.locking import BACKUP_LOCK, exclusive

log = logging.getLogger(__name__)
_WORST_FIRST = ("none", "unknown", "crash", "guest")
_FIGURES = Statistics.__struct_fields__


@dataclass(frozen=True)
class Together:
    """The revisions of all disks of a machine of one instant. They have the same id, number and tags."""

    members: dict[str, Revision]
    """The revisions by the names of the disks, in the order of the group."""

    @property
    def revision(self) -> Revision:
        """The revision that stands for all: the one most in doubt, with the worst and the sum of what they have."""
        each = [*self.members.values()]
        if len(each) == 1:
            return each[0]
        found = max(each, key=lambda one: (one.unread, bool(one.state.wrong), one.doubtful, bool(one.shrunk)))
        tags = tuple(sorted({tag for one in each for tag in one.tags}))
        # a pin of one disk holds all of them, from the time when that was pinned
        pinned = max((one.state.pinned for one in each if one.state.pinned), default=None)
        verified = [one.verification for one in each if one.verification]
        together = Verification.together(verified, sum) if len(verified) == len(each) else None
        compared = [one.compared_since for one in each if one.compared_since]
        return msgspec.structs.replace(
            found,
            size=sum(one.size for one in each),
            consistency=min((one.consistency for one in each), key=_WORST_FIRST.index),
            unfrozen=any(one.unfrozen for one in each),
            statistics=Statistics(**{key: sum(getattr(one.statistics, key) for one in each) for key in _FIGURES}),
            verifications=(together,) if together else (),
            compared_since=min(compared) if len(compared) == len(each) else None,
            state=msgspec.structs.replace(found.state, tags=tags, pinned=pinned),
        )

    @property
    def id(self) -> str:
        """The id."""
        return next(iter(self.members.values())).id

    @property
    def is_whole(self) -> bool:
        """Whether no disk is missing."""
        return all(one.group and self.members.keys() >= {*one.group.disks} for one in self.members.values())

    @property
    def lacking(self) -> str:
        """What is not there of it, for operators."""
        wanted = {name for one in self.members.values() if one.group for name in one.group.disks}
        missing = ", ".join(sorted(wanted - self.members.keys()))
        return f"of {self.id} not all disks are there: {missing} is missing, {', '.join(self.members)} is there"

    @property
    def forgotten(self) -> set[bool]:
        """Whether its revisions are in the trash: both if some are."""
        return {bool(one.state.forgotten) for one in self.members.values()}


class Group:
    """A directory with the repositories of the disks of one machine."""

    def __init__(self, directory: Path, config: GroupConfig) -> None:
        self.directory = directory
        self.config = config
        self.job = Job(directory.name, config.id or directory.name, directory)

    def names(self) -> list[str]:
        """Return the names of all disks that have a repository: those of `config`, and what the machine has no more."""
        found = [name for name in names_in(self.directory) if (self.directory / name / CONFIG).is_file()]
        places = {name: place for place, name in enumerate(self.config.disks)}
        return sorted(found, key=lambda name: (places.get(name, len(places)), name))

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
        problem = next((one.lacking for one in partial if newest is None or one.revision.order > newest.order), None)
        # the order of a damaged record is not known, if no other disk tells it: only a link tells which is the newest
        lost = [error for error in damaged if error.revision_id not in {one.id for one in partial}]
        links = {Records(self.directory / name).linked() for name in self.names()} if lost else set()
        if lost and (newest is None or newest.id not in links):
            problem = problem or str(lost[0])
        return problem and f"{problem}; {instead(newest)}"

    def alone(self, *, wait: bool = False) -> AbstractContextManager[None]:
        """Return what keeps other commands away that change the group; raises RepositoryBusyError unless it waits."""
        return exclusive(self.directory, BACKUP_LOCK, wait=wait)

    @contextmanager
    def locked(self) -> Iterator[dict[str, Repository]]:
        """Hold the locks of all disks, and finish what others began; raises RepositoryBusyError."""
        with self.alone(), ExitStack() as stack:
            self.clean_up()
            repositories = {name: self.repository(name) for name in self.names()}
            for repository in repositories.values():
                stack.enter_context(repository.locked())
            yield repositories

    def clean_up(self) -> None:
        """Remove what a backup has made that did not end, and put into the trash what followed others halfway.

        What is incomplete for another reason stays: somebody may have moved the folder of a disk. So does what a live
        restore uses. The caller keeps others away.
        """
        for group_id in begun(names_in(self.directory)):
            disks = self._disks(group_id)
            if any(name not in self.names() for name in disks):
                log.warning("the backup %s did not end, and a disk's folder is missing: what is there stays", group_id)
                continue
            # a record counts, sound or not: the backup was complete, and only what tells that it ran was left
            if not all(Records(self.directory / name).record_path(group_id).exists() for name in disks):
                for name in disks:
                    self._remove(name, group_id)
            end(self.directory, group_id)
        for one in self.survey()[0]:
            for name, revision in one.members.items() if True in one.forgotten else ():
                if not revision.state.forgotten and revision.id not in uses(self.directory / name):
                    repository = self.repository(name)
                    with repository.locked():
                        discard(repository, revision, "forget", utc_now(), "with the other disks")

    def _disks(self, group_id: str) -> Sequence[str]:
        try:
            return msgspec.json.decode(read_file(running_path(self.directory, group_id)), type=Disks).disks
        except msgspec.DecodeError:
            return self.names()

    def _remove(self, name: str, group_id: str) -> None:
        if Records(self.directory / name).holds(group_id):
            log.info("removing the revision %s of %s: other disks have none", group_id, name)
            repository = self.repository(name)
            with repository.locked():
                repository.remove(group_id, "remove", "other disks have none")


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


def attachments(directory: Path, specification: str) -> dict[str, bytes]:
    """Return the attachments of a revision of the repository, or group, in `directory`, by name.

    Raises:
        RevisionNotFoundError: there is no revision that SPEC stands for.
        DamageError: they are damaged.
    """
    if group := opened(directory):
        return of_disks(directory, group.select(specification))
    records = Records(directory)
    return read(records, records.select(specification))


def of_disks(directory: Path, chosen: Together) -> dict[str, bytes]:
    """Return those of all disks of a machine; of two that differ, the second one has its disk before its name."""
    found: dict[str, bytes] = {}
    # the names of the images beside which they may be written
    taken = {f"{disk}.img" for disk in chosen.members}
    for disk, revision in chosen.members.items():
        for name, content in read(Records(directory / disk), revision).items():
            differs = name in taken or found.get(name, content) != content
            found[f"{disk}-{name}" if differs else name] = content
    return found


def save(files: Mapping[str, bytes], folder: Path, *, force: bool = False) -> None:
    """Write files to a folder, which is made if it is missing; nobody else may read them.

    Raises:
        TargetError: one is there already, and `force` is false; nothing is written.
        DamageError: a name leads elsewhere; nothing is written.
    """
    if wrong := [name for name in files if not ATTACHMENT_PATTERN.fullmatch(name)]:
        raise DamageError(f"{wrong[0]!r} can be no attachment: nothing is written")
    if not force and (there := [folder / name for name in files if (folder / name).exists()]):
        raise TargetError(f"{there[0]} is there already; --force replaces it")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in files.items():
        write_file(folder / name, content, 0o600)
