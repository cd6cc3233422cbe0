"""Expire tags by the schedule in a repository's `config`, and remove revisions that have none left."""

import logging
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision
from backy.retention.brake import Mark, Plan, plan, read_mark, write_mark
from backy.retention.forget import retain
from backy.retention.tags import retag
from backy.retention.trash import discard, may_go
from backy.system.clocks import present
from backy.text.phrases import counted

log = logging.getLogger(__name__)
_DAY = timedelta(days=1)


def due(repository: Repository, now: datetime) -> Plan:
    """Return what expires at `now`; nothing if there is no schedule or it is off."""
    return plan(repository.config, repository.records.history(), read_mark(repository.directory), present(now))


def expire(repository: Repository, clock: Clock, events: Events | None = None) -> Plan:
    """Remove expired tags, and revisions without any left; return what was done and waits. A purge frees the space.

    What a plugin holds back stays as it is. `events` has the plugins; None stands for the installed ones.

    Raises:
        RepositoryBusyError: a backup is running.
        PluginError: a plugin that may hold back revisions can not be asked; nothing was removed.
    """
    with events or Events.installed(repository.config.hooks) as plugins, repository.locked():
        # under the lock, so that no tag changes between the decision and its execution
        # all are asked first: if one plugin can not answer, nothing goes
        now, history = clock(), repository.records.history()
        allowed = partial(may_go, repository, plugins, "nothing of it expires")
        done, waiting = plan(repository.config, history, read_mark(repository.directory), present(now), allowed)
        # before anything goes: if this ends halfway, the next one lets less go and not more
        if history and repository.config.schedule and repository.config.expire:
            _remember(repository.directory, history[-1], waiting, now)
        for expiry in done:
            if expiry.remaining:
                retag(repository, expiry.revision, expiry.remaining, "expire")
            else:
                discard(repository, expiry.revision, "expire", now)
                plugins.tell("backy_revision_removed", job=repository.job, revision=expiry.revision.info)
            log.info("%s: expired %s, remaining %s", expiry.revision.id, expiry.lost, expiry.remaining)
        # once for all removed revisions: a source may be far away
        if any(not expiry.remaining for expiry in done):
            retain(repository)
    return Plan(done, waiting)


def _remember(directory: Path, newest: Revision, waiting: int, now: datetime) -> None:
    """Write down that revisions expire now, and log once a day that others wait."""
    before = read_mark(directory)
    told = before.told if before else None
    if waiting and (told is None or not timedelta() <= now - told < _DAY):
        text = "%s to expire: the clock may be wrong, and no more go at a time than were made since, and one"
        log.warning(text, counted(waiting, "revision waits", "revisions wait"))
        told = now
    write_mark(directory, Mark(newest.seq, waiting, told))
