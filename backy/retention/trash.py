"""The trash: revisions that were forgotten or have expired, until their term is over. Their data stay where they are.

`<id>.state` says since when. Who looks for revisions does not see them; who frees space or moves data does.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from backy.errors import DamageError, RepositoryError, RevisionNotFoundError
from backy.plugins.events import Events, RefusedError
from backy.repository.clocks import trusted_now
from backy.repository.repository import Repository
from backy.repository.revision import MANUAL, Revision, State
from backy.retention.rules import Expiry
from backy.system.clocks import present

log = logging.getLogger(__name__)
States = Mapping[str, State | None]
"""The states of all revisions by id, None for one that is lost."""
UNDELETED = f"{MANUAL}undeleted"
"""The tag of what came back: without it, the next `expire` might remove it again."""


def discard(repository: Repository, revision: Revision, act: str, now: datetime, note: str | None = None) -> None:
    """Put a revision into the trash, or remove it if the trash keeps nothing; the caller holds `.backup`.

    One whose chunks nobody knows is removed: it can not be restored, and would keep all space from being freed. So is
    one whose state can not be read: that it is in the trash would have to be written there.
    """
    if repository.config.trash and not revision.unread and repository.records.has_map(revision):
        repository.records.change(revision, act, note, forgotten=_trusted(repository, now))
        repository.unlink(revision.id)
    else:
        repository.remove(revision.id, act, note)


def require_alone(repository: Repository, revision: Revision, command: str) -> None:
    """Refuse to change what other disks of a machine have, too; raises RepositoryError with the `command` for all."""
    machine, group = repository.directory.parent, revision.group
    for disk in {*group.disks} - {repository.directory.name} if group else ():
        # a disk that was copied without the others is alone
        if (machine / disk / f"{revision.id}.rev").exists():
            way = f"'backy -b {machine} {command}' is for all of them"
            raise RepositoryError(f"{revision.id} is of one instant with other disks; {way}")


def may_go(repository: Repository, events: Events, otherwise: str, expiry: Expiry) -> bool:
    """Return whether no plugin holds back what goes; log it and what becomes of it `otherwise`.

    Raises:
        PluginError: a plugin that may hold back revisions can not be asked.
    """
    revision = expiry.revision
    try:
        events.ask("backy_expiring", closed=True, job=repository.job, revision=revision.info, tags=expiry.lost)
    except RefusedError as error:
        log.info("%s: %s: %s", revision.id, otherwise, error)
        return False
    return True


def content(repository: Repository) -> list[Revision]:
    """Return what is in the trash, the oldest first."""
    return [revision for revision in repository.records.history(trash=True) if revision.state.forgotten]


def undelete(repository: Repository, revision_id: str, events: Events | None = None) -> Revision:
    """Get a revision back from the trash; return it as it is now.

    It gets the tag `manual:undeleted`, which nothing expires. `events` has the plugins; None stands for the installed.

    Raises:
        RepositoryBusyError: a backup is running.
        RevisionNotFoundError: it is not in the trash.
    """
    with events or Events.installed(repository.config.hooks) as plugins, repository.locked():
        found = [revision for revision in content(repository) if revision.id.startswith(revision_id)]
        if len(found) != 1:
            answer = f"{len(found) or 'no'} revisions in the trash answer to '{revision_id}'"
            raise RevisionNotFoundError(f"{answer}; 'backy status --trash' lists them")
        require_alone(repository, found[0], f"undelete {found[0].id}")
        tags = tuple(sorted({*found[0].tags, UNDELETED}))
        revision = repository.records.change(found[0], "undelete", forgotten=None, tags=tags)
        repository.link_last()
        plugins.tell("backy_revision_undeleted", job=repository.job, revision=revision.info)
    return revision


def empty(repository: Repository, states: States, now: datetime, events: Events, *, everything: bool = False) -> None:
    """Remove for good what has been in the trash for its term, or all of it; the caller holds `.backup`.

    What a plugin holds back stays.

    Raises:
        PluginError: a plugin that may hold back revisions can not be asked; nothing was removed.
    """
    trusted, going = _trusted(repository, now), []
    for revision_id, state in states.items():
        if not state or not state.forgotten or (trusted - state.forgotten < repository.config.trash and not everything):
            continue
        try:
            revision = repository.records.read(revision_id)
        except DamageError as error:
            log.warning("%s: it stays in the trash", error)
            continue
        if may_go(repository, events, "it stays in the trash", Expiry(revision, ())):
            going.append(revision)
    # all are asked first: if one plugin can not answer, nothing goes
    for revision in going:
        repository.remove(revision.id, "purge")
        events.tell("backy_revision_purged", job=repository.job, revision=revision.info)


def _trusted(repository: Repository, now: datetime) -> datetime:
    """Return the time by which the term is counted: a clock that jumps ahead must not empty the trash."""
    records: list[Revision] = []
    # the newest one is enough: counted on from another one, the time is the same or less
    with suppress(FileNotFoundError, DamageError):
        records = [repository.records.read(repository.records.linked() or "")]
    if not any(record.boot for record in records):
        records = repository.records.survey(trash=True)[0]
    return trusted_now(records, present(now), repository.config.allowance)
