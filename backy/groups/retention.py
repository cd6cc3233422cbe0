"""Forgets, expires and purges the disks of a machine together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from backy.api import Purged
from backy.errors import ForgettingRefusedError, RevisionNotFoundError
from backy.groups.changing import locked
from backy.groups.group import Group, Together
from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.retention.brake import Mark, Plan, plan, read_mark, write_mark
from backy.retention.forget import LATELY, forgotten, retain, too_much
from backy.retention.purge import purge
from backy.retention.rules import Expiry
from backy.retention.tags import retag
from backy.retention.trash import UNDELETED, discard, may_go
from backy.system.clocks import present

Clock = Callable[[], datetime]


def forget(
    group: Group,
    specifications: Sequence[str],
    reason: str | None = None,
    *,
    force: bool = False,
    clock: Clock = utc_now,
) -> list[str]:
    """Put groups into the trash, all disks of each; return their ids.

    Raises:
        RepositoryBusyError: another command uses the group.
        RevisionNotFoundError: SPEC names none; nothing is forgotten.
        RefusedError, PluginError: a plugin holds one back, or can not be asked; nothing is forgotten.
        ForgettingRefusedError: it is too much at a time, and `force` is false.
    """
    with Events.installed(group.config.hooks) as events, locked(group) as repositories:
        now, chosen = clock(), {}
        for specification in specifications:
            found = group.select(specification)
            chosen[found.id] = found
        # by any of the disks: they are forgotten together, and one of them may be new
        before = max(forgotten(one.records.journal.read(), now - LATELY) for one in repositories.values())
        if not force and (problem := too_much(group.history(), chosen, before)):
            raise ForgettingRefusedError(f"{problem}; '--force --reason TEXT' does it all the same")
        for found in chosen.values():
            for name, revision in found.members.items():
                told = {"job": repositories[name].job, "revision": revision.info}
                events.ask("backy_expiring", closed=True, **told, tags=revision.tags)
        for found in chosen.values():
            for name, revision in found.members.items():
                discard(repositories[name], revision, "forget", now, reason)
                events.tell("backy_revision_removed", job=repositories[name].job, revision=revision.info)
        _retain(repositories)
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
        for expiry in done:
            found = groups[expiry.revision.id]
            for name, revision in found.members.items():
                if expiry.remaining:
                    left = tuple(tag for tag in revision.tags if tag in expiry.remaining)
                    retag(repositories[name], revision, left, "expire")
                else:
                    discard(repositories[name], revision, "expire", now)
                    events.tell("backy_revision_removed", job=repositories[name].job, revision=revision.info)
        if any(not expiry.remaining for expiry in done):
            _retain(repositories)
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
    """Purge the repositories of all disks; raises as `purge`."""
    purged = [purge(group.repository(name), everything=everything) for name in group.names()]
    return Purged(sum(one.files for one in purged), sum(one.bytes for one in purged))


def _retain(repositories: dict[str, Repository]) -> None:
    for repository in repositories.values():
        retain(repository)
