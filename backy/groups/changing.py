"""Changes a group: the locks of all disks, and what others left halfway."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec

from backy.durable import names_in, read_file
from backy.groups.group import Group
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Group as Disks
from backy.repository.revision import utc_now
from backy.repository.running import begun, end, running_path
from backy.retention.trash import discard

log = logging.getLogger(__name__)


@contextmanager
def locked(group: Group) -> Iterator[dict[str, Repository]]:
    """Hold the locks of all disks, and finish what others began; raises RepositoryBusyError."""
    with group.alone(), ExitStack() as stack:
        clean_up(group)
        repositories = {name: group.repository(name) for name in group.names()}
        for repository in repositories.values():
            stack.enter_context(repository.locked())
        yield repositories


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
