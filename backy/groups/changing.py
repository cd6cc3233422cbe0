"""Changes a group: the locks of all disks, and what others left halfway."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from backy.durable import names_in
from backy.groups.group import Group
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.repository.running import begun, end
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
        if group_id not in {one.id for one in group.survey()[0]}:
            for name in group.names():
                _remove(group, name, group_id)
        end(group.directory, group_id)
    for one in group.survey()[0]:
        for name, revision in one.members.items() if True in one.forgotten else ():
            if not revision.state.forgotten:
                repository = group.repository(name)
                with repository.locked():
                    discard(repository, revision, "forget", utc_now(), "with the other disks")


def _remove(group: Group, name: str, group_id: str) -> None:
    if Records(group.directory / name).holds(group_id):
        log.info("removing the revision %s of %s: other disks of the machine have none", group_id, name)
        repository = group.repository(name)
        with repository.locked():
            repository.remove(group_id, "remove", "the backup of other disks did not end")
