"""What is done to the disks of a machine together: backing up at one instant, restoring, forgetting, purging.

The backups of all disks go on stage by stage. First all begin, which takes time; then all snapshots are made, within
one moment; then the disks are transferred, one after the other. Records are written when all are stored and verified:
so no source drops what the next backup needs because another disk fails.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import shortuuid

from backy.api import Moment, Purged
from backy.backup.backup import Backup
from backy.backup.rest import Rest, Stages
from backy.durable import names_in, read_file
from backy.errors import BackyError, DamageError, ForgettingRefusedError, RevisionNotFoundError, TargetError
from backy.groups.group import Group, Together, of_disks, opened, save
from backy.plugins.discovery import Kind
from backy.plugins.events import Events
from backy.plugins.loading import call
from backy.repository.config import CONFIG
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision, utc_now
from backy.repository.revision import Group as Disks
from backy.repository.running import begin, begun, end, last_number, running_path, use_number
from backy.restore.restore import Restore
from backy.retention.forget import LATELY, forgotten, require_read, retain, too_much
from backy.retention.purge import UNDELETED, discard, may_go, purge
from backy.retention.rules import Expiry, Mark, Plan, plan, read_mark, write_mark
from backy.retention.tags import retag
from backy.system.clocks import present
from backy.system.progress import Steps, quiet

log = logging.getLogger(__name__)


def backup(group: Group, tags: tuple[str, ...], clock: Clock = utc_now, steps: Steps = quiet) -> Together:
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


def restore(group: Group, specification: str, target: Path, *, force: bool = False, steps: Steps = quiet) -> Together:
    """Write the images of all disks to the folder `target`, which is made if it is missing, as `DISK.img`.

    Raises:
        RevisionNotFoundError: SPEC names no group.
        TargetError: a file is there already, and `force` is false; nothing is written.
        BackyError, OSError: as a restore of one disk.
    """
    chosen = group.select(specification)
    images = {name: target / f"{name}.img" for name in chosen.members}
    if not force and (there := [path for path in images.values() if path.exists()]):
        raise TargetError(f"{there[0]} is there already; --force replaces it")
    if group.directory in (target.resolve(), *target.resolve().parents):
        raise TargetError(f"{target} lies inside of the repositories: restore to another place")
    # the content of guests: nobody else looks into the folder
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    save(of_disks(group.directory, chosen), target, force=force)
    for name, revision in chosen.members.items():
        # an absolute path: a name with a colon would be a place of a source
        path = str(images[name].absolute())
        Restore(group.repository(name), revision.id, path, force=force, steps=steps).run()
    return chosen


def forget(
    group: Group,
    specifications: Sequence[str],
    reason: str | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
) -> list[str]:
    """Put groups into the trash, all disks of each; return their ids. A `dry_run` does nothing else, and asks nobody.

    Raises:
        RepositoryBusyError: another command uses the group.
        RevisionNotFoundError: SPEC names none; nothing is forgotten. A full id also names what is left of one.
        DamageError: SPEC is no full id, and what is newer is not whole; or a state can not be read now.
        RefusedError, PluginError: a plugin holds one back, or can not be asked; nothing is forgotten.
        ForgettingRefusedError: it is too much at a time, and `force` is false.
    """
    with Events.installed(group.config.hooks) as events, locked(group) as repositories:
        now, chosen = utc_now(), dict(_chosen(group, specification) for specification in specifications)
        for members in chosen.values():
            require_read(members.values(), specifications, force=force)
        # by any of the disks: they are forgotten together, and one of them may be new
        before = max(forgotten(one.records.journal.read(), now - LATELY) for one in repositories.values())
        if not force and (problem := too_much(group.history(), chosen, before)):
            raise ForgettingRefusedError(f"{problem}; '--force --reason TEXT' does it all the same")
        if dry_run:
            return list(chosen)
        for members in chosen.values():
            for name, revision in members.items():
                told = {"job": repositories[name].job, "revision": revision.info}
                events.ask("backy_expiring", closed=True, **told, tags=revision.tags)
        acting = _Acting(group, repositories, events, now)
        for group_id, members in chosen.items():
            acting.discard(group_id, members, "forget", reason)
        acting.retain()
    return list(chosen)


def due(group: Group, now: datetime) -> Plan:
    """Return what expires at `now`; nothing if there is no schedule or it is off."""
    return plan(group.config, group.history(), read_mark(group.directory), present(now))


def expire(group: Group, clock: Clock) -> Plan:
    """Remove expired tags of all disks, and what has none left; return what was done and waits.

    Raises:
        RepositoryBusyError: another command uses the group.
        PluginError: a plugin that may hold back revisions can not be asked; nothing was removed.
    """
    with Events.installed(group.config.hooks) as events, locked(group) as repositories:
        now, groups = clock(), {one.id: one for one in group.together()}
        history = [one.revision for one in groups.values()]

        def allowed(expiry: Expiry) -> bool:
            members = groups[expiry.revision.id].members
            each = [(repositories[name], Expiry(one, expiry.remaining)) for name, one in members.items()]
            return all(may_go(repository, events, "nothing of it expires", one) for repository, one in each)

        done, waiting = plan(group.config, history, read_mark(group.directory), present(now), allowed)
        if history and group.config.schedule and group.config.expire:
            write_mark(group.directory, Mark(history[-1].seq, waiting))
        acting = _Acting(group, repositories, events, now)
        for expiry in done:
            members = groups[expiry.revision.id].members
            if not expiry.remaining:
                acting.discard(expiry.revision.id, members, "expire")
            for name, revision in members.items() if expiry.remaining else ():
                retag(repositories[name], revision, {*revision.tags} & {*expiry.remaining}, "expire")
        if any(not expiry.remaining for expiry in done):
            acting.retain()
    return Plan(done, waiting)


def undelete(group: Group, group_id: str) -> Together:
    """Get all disks of a group back from the trash.

    Raises:
        RepositoryBusyError: another command uses the group.
        RevisionNotFoundError: it is not in the trash.
    """
    with Events.installed(group.config.hooks) as events, locked(group) as repositories:
        found = [one for one in group.together(trash=True) if one.id.startswith(group_id)]
        if len(found) != 1:
            answer = f"{len(found) or 'no'} revisions in the trash answer to '{group_id}'"
            raise RevisionNotFoundError(f"{answer}; 'backy status --trash' lists them")
        for name, revision in found[0].members.items():
            tags = tuple(sorted({*revision.tags, UNDELETED}))
            repositories[name].records.change(revision, "undelete", forgotten=None, tags=tags)
            repositories[name].link_last()
            events.tell("backy_revision_undeleted", job=repositories[name].job, revision=revision.info)
    return next(one for one in group.together() if one.id == found[0].id)


def purge_all(group: Group, *, everything: bool = False) -> Purged:
    """Purge the repositories of all disks, also after one that fails; raises the first error of `purge`."""
    purged, failed = [], []
    with group.alone():
        clean_up(group)
        for name in group.names():
            try:
                purged.append(purge(group.repository(name), everything=everything))
            except BackyError as error:
                log.warning("%s is not purged: %s", group.directory / name, error)
                failed.append(error)
    if failed:
        raise failed[0]
    return Purged(sum(one.files for one in purged), sum(one.bytes for one in purged))


def _chosen(group: Group, specification: str) -> tuple[str, Mapping[str, Revision]]:
    """Return the id and the revisions of what to forget: by its full id also what is left of a group."""
    try:
        found = group.select(specification)
    except (DamageError, RevisionNotFoundError):
        whole, partial, _ = group.survey()
        left = {one.id: one.members for one in partial}
        held = any(Records(group.directory / name).holds(specification) for name in group.names())
        if not held or specification in {one.id for one in whole}:
            raise
        return specification, left.get(specification, {})
    return found.id, found.members


@dataclass(frozen=True)
class _Acting:
    """What removes groups while the locks of all disks are held."""

    group: Group
    repositories: Mapping[str, Repository]
    events: Events
    now: datetime

    def discard(self, group_id: str, members: Mapping[str, Revision], act: str, reason: str | None = None) -> None:
        """Put all disks of a group into the trash, or remove what the trash can not keep."""
        if not self.group.config.trash:
            # no state tells of what is removed: if this ends halfway, the next command removes the rest
            begin(self.group.directory, Disks(group_id, tuple(members)))
        for name, repository in self.repositories.items():
            if revision := members.get(name):
                discard(repository, revision, act, self.now, reason)
                self.events.tell("backy_revision_removed", job=repository.job, revision=revision.info)
            elif repository.records.holds(group_id):
                # its record is damaged
                repository.remove(group_id, act, reason)
        end(self.group.directory, group_id)

    def retain(self) -> None:
        """Have the sources drop what they keep for removed revisions."""
        for repository in self.repositories.values():
            retain(repository)


@contextmanager
def locked(group: Group) -> Iterator[dict[str, Repository]]:
    """Hold the locks of all disks, and finish what others began; raises RepositoryBusyError."""
    with group.alone(), ExitStack() as stack:
        clean_up(group)
        repositories = {name: group.repository(name) for name in group.names()}
        for repository in repositories.values():
            stack.enter_context(repository.locked())
        yield repositories


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep others from writing to a repository, or to all disks of a machine; wait for those that do."""
    group = opened(directory)
    with ExitStack() as stack:
        if group:
            stack.enter_context(group.alone(wait=True))
        for one in map(group.repository, group.names()) if group else [Repository.open(directory)]:
            stack.enter_context(one.locked(wait=True, storing=True))
        yield


def clean_up(group: Group) -> None:
    """Remove what a backup has made that did not end, and put into the trash what followed others halfway.

    What is incomplete for another reason stays: somebody may have moved the folder of a disk.
    """
    for group_id in begun(names_in(group.directory)):
        disks = _disks(group, group_id)
        if any(name not in group.names() for name in disks):
            text = "the backup %s did not end, and now the folder of a disk is missing: what there is of it stays"
            log.warning(text, group_id)
            continue
        # a record counts, sound or not: the backup was complete, and only what tells that it ran was left
        if not all(Records(group.directory / name).record_path(group_id).exists() for name in disks):
            for name in disks:
                _remove(group, name, group_id)
        end(group.directory, group_id)
    for one in group.survey()[0]:
        for name, revision in one.members.items() if True in one.forgotten else ():
            if not revision.state.forgotten:
                repository = group.repository(name)
                with repository.locked():
                    discard(repository, revision, "forget", utc_now(), "with the other disks")


def _disks(group: Group, group_id: str) -> Sequence[str]:
    try:
        return msgspec.json.decode(read_file(running_path(group.directory, group_id)), type=Disks).disks
    except msgspec.DecodeError:
        return group.names()


def _remove(group: Group, name: str, group_id: str) -> None:
    if Records(group.directory / name).holds(group_id):
        log.info("removing the revision %s of %s: other disks have none", group_id, name)
        repository = group.repository(name)
        with repository.locked():
            repository.remove(group_id, "remove", "other disks have none")
