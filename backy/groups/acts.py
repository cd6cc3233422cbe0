"""What is done to the disks of a machine together: backing up at one instant, restoring, purging.

The backups of all disks go on stage by stage. First all begin, which takes time; then all snapshots are made, within
one moment; then the disks are transferred, one after the other. Records are written when all are stored and verified:
so no source drops what the next backup needs because another disk fails.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
import shortuuid

from backy.api import Purged, SharingStorage
from backy.backup.backup import Backup
from backy.backup.rest import Rest, Stages, moment_of
from backy.errors import BackyError, TargetError
from backy.groups.group import Group, Together, of_disks, opened, save
from backy.repository.config import CONFIG
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Disks, utc_now
from backy.repository.running import begin, end, last_number, use_number
from backy.restore.restore import Restore
from backy.retention.purge import purge
from backy.system.progress import Steps, quiet

log = logging.getLogger(__name__)


def backup(group: Group, tags: tuple[str, ...], clock: Clock = utc_now, steps: Steps = quiet) -> Together:
    """Make a revision of each disk, all of one instant, and return them.

    Raises:
        RepositoryBusyError, SourceBusyError: another command uses the group or one of its disks.
        BackyError, OSError: anything else; no disk has a new revision.
    """
    with group.alone():
        group.clean_up()
        repositories = {name: _configured(group, name) for name in group.config.disks}
        disks, rest = Disks(shortuuid.uuid(), tuple(repositories)), Rest()
        moment = moment_of(group.job, group.config.moment)
        if moment is None and len(disks.disks) > 1:
            log.warning("nothing brings the machine to rest, so its disks may be of different instants: add a 'moment'")
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
                group.clean_up()
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


def purge_all(group: Group, *, everything: bool = False) -> Purged:
    """Purge the repositories of all disks, also after one that fails; raises the first error of `purge`."""
    purged, failed = [], []
    with group.alone():
        group.clean_up()
        for name in group.names():
            try:
                purged.append(purge(group.repository(name), everything=everything))
            except BackyError as error:
                log.warning("%s is not purged: %s", group.directory / name, error)
                failed.append(error)
    if failed:
        raise failed[0]
    return Purged(sum(one.files for one in purged), sum(one.bytes for one in purged))


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


def join(directories: Iterable[Path]) -> dict[str, int]:
    """Let the repositories in these directories share again what they have in common; return the bytes by name.

    Raises:
        RepositoryBusyError: another command changes one of them.
    """
    done: dict[str, int] = {}
    for directory in directories:
        group = opened(directory)
        for one in [group.repository(name) for name in group.names()] if group else [Repository.open(directory)]:
            with one.locked(wait=True):
                storages = one.storages.identified().values()
                joined = sum(each.join() for each in storages if isinstance(each, SharingStorage))
            done[directory.name] = done.get(directory.name, 0) + joined
    return done
