"""Backs up all disks of a machine at one instant.

Each backup is begun within the one before, where that waits for its snapshot: so all locks are held, and all is chosen
that needs time, before the first snapshot is made. The innermost makes all of them. Then the disks are transferred one
after the other, the last one first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
import shortuuid

from backy.api import Moment, Snapshot, Source
from backy.backup.backup import Backup
from backy.backup.rest import Rest
from backy.durable import write_file
from backy.errors import BackyError
from backy.groups.changing import clean_up
from backy.groups.group import Group, Together
from backy.plugins.discovery import Kind
from backy.plugins.loading import call
from backy.repository.config import CONFIG
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Group as Disks
from backy.repository.revision import Revision, utc_now
from backy.repository.running import end, last_number, running_path, use_number
from backy.system.progress import Steps, quiet

log = logging.getLogger(__name__)
_MODE = 0o640


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
        disks = Disks(shortuuid.uuid(), tuple(repositories))
        if len(disks.disks) > 1 and group.config.moment is None:
            log.warning("nothing brings the machine to rest, so its disks may be of different instants: add a 'moment'")
        _number(group)
        # durable before the first record: it tells what to remove if the others never come
        write_file(running_path(group.directory, disks.id), msgspec.json.encode(disks) + b"\n", _MODE)
        try:
            made = _Run(group, disks, tags, clock, steps, repositories).all()
        except BaseException:
            # else the next backup does it
            with suppress(BackyError, OSError):
                clean_up(group)
            raise
        end(group.directory, disks.id)
    return Together({name: made[name] for name in disks.disks})


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


@dataclass
class _Run:
    """The backups of all disks, each within the one before."""

    group: Group
    disks: Disks
    tags: tuple[str, ...]
    clock: Callable[[], datetime]
    steps: Steps
    repositories: dict[str, Repository]
    moment: AbstractContextManager[Moment] | None = None
    rest: Rest = field(default_factory=Rest)
    take: list[Callable[[], None]] = field(default_factory=list)
    """Make the snapshots of the disks whose backups have begun."""
    made: dict[str, Revision] = field(default_factory=dict)

    def all(self) -> dict[str, Revision]:
        """Back up all disks; return their revisions."""
        section, job = self.group.config.moment, self.group.job
        if section is not None:
            self.moment = call(Kind.MOMENT, section.type, "backy_moment", config=section.options, job=job)
        self.go_on()
        return self.made

    def go_on(self) -> None:
        """Begin the next backup; once all have begun, make the snapshots."""
        if len(self.take) < len(self.disks.disks):
            name = self.disks.disks[len(self.take)]
            repository = self.repositories[name]
            self.made[name] = Backup(
                repository,
                self.tags,
                clock=self.clock,
                steps=self.steps,
                source=_Within(repository.source(), self),
                revision_id=self.disks.id,
                group=self.disks,
                rest=self.rest,
            ).run()
            return
        with self.rest.during(self.moment):
            for take in self.take:
                take()


class _Within:
    """The source of a disk, whose snapshot is made together with those of the others."""

    def __init__(self, source: Source, run: _Run) -> None:
        self._source = source
        self._run = run

    @property
    def verifier(self) -> str:
        """Name of the source's verifier."""
        return self._source.verifier

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Have the other disks begin, and give this one's snapshot once they are done."""
        taken: list[Snapshot] = []
        # ended by this disk's own backup, which alone knows whether it succeeds
        with ExitStack() as stack:
            self._run.take.append(lambda: taken.append(stack.enter_context(self._source.snapshot(revision_id, parent))))
            self._run.go_on()
            yield taken[0]
