"""Forget revisions, those that a person names and those that expire, and what a source keeps for them elsewhere.

Tags expire by the schedule in a repository's `config`. A revision without any tag is forgotten.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from backy.api import KeepingSource
from backy.errors import DamageError, ForgettingRefusedError, RepositoryBusyError, RevisionNotFoundError, UnreadError
from backy.plugins.events import Events
from backy.repository.journal.replay import Read, Step
from backy.repository.records import Survey
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision, utc_now
from backy.repository.running import births
from backy.retention.purge import discard, may_go, require_alone
from backy.retention.rules import Mark, Plan, plan, read_mark, write_mark
from backy.retention.tags import retag
from backy.system.clocks import present
from backy.text.phrases import counted

log = logging.getLogger(__name__)
LATELY = timedelta(days=7)
"""Within this time, a person forgets no more than `too_much` allows."""
_DAY = timedelta(days=1)


def forget(  # noqa: PLR0913  # what a person says, and the edges of the machine
    repository: Repository,
    specifications: Sequence[str],
    reason: str | None = None,
    *,
    force: bool = False,
    clock: Callable[[], datetime] = utc_now,
    events: Events | None = None,
    dry_run: bool = False,
) -> list[str]:
    """Put the revisions that SPECs name into the trash, and drop what the source keeps for them; return their ids.

    A revision whose record is damaged or lost is removed at once, by its full id; and by `force` one whose state can
    not be read.

    Args:
        repository: Has the revisions.
        specifications: Name them.
        reason: Why, for the journal.
        force: Whether to forget more than `too_much` allows, or what may be sound.
        clock: Returns the time.
        events: Has the plugins; None stands for the installed ones.
        dry_run: Whether only to return the ids; no plugin is asked.

    Raises:
        RepositoryBusyError: a backup is running that needs a revision, or another command changes some.
        RevisionNotFoundError: there is no such revision; nothing is forgotten.
        DamageError: the newest record is damaged, and SPEC is not a full id.
        RefusedError, PluginError: a plugin holds a revision back, or can not be asked; nothing is forgotten.
        ForgettingRefusedError: it is too much at a time, and `force` is false.
        UnreadError: a state can not be read now, and `force` is false, or SPEC is not a full id; nothing is forgotten.
    """
    with events or Events.installed(repository.config.hooks) as plugins, repository.changing() as running:
        now, surveyed = clock(), repository.records.survey(trash=True)
        history = [revision for revision in surveyed[0] if not revision.state.forgotten]
        chosen = {_chosen(repository, surveyed, specification): None for specification in specifications}
        for birth in births(repository.directory) if running else ():
            for needed in chosen.keys() & {birth.id, birth.parent}:
                raise RepositoryBusyError(
                    f"the backup that runs needs revision {needed}; forget it when that has ended"
                )
        found = [revision for revision in history if revision.id in chosen]
        for revision in found:
            require_alone(repository, revision, f"forget -r {revision.id}")
        require_read(found, specifications, force=force)
        before = forgotten(repository.records.journal.read(), now - LATELY)
        if not force and (problem := too_much(history, chosen, before)):
            raise ForgettingRefusedError(f"{problem}; '--force --reason TEXT' does it all the same")
        if dry_run:
            return list(chosen)
        # one whose record is damaged has nothing that a plugin could judge by
        for revision in found:
            told = {"job": repository.job, "revision": revision.info}
            plugins.ask("backy_expiring", closed=True, **told, tags=revision.tags)
        for revision in found:
            discard(repository, revision, "forget", now, reason)
            plugins.tell("backy_revision_removed", job=repository.job, revision=revision.info)
        for revision_id in chosen.keys() - {revision.id for revision in found}:
            repository.remove(revision_id, "forget", reason)
        # no source is asked beside a backup: what it keeps goes with the next removal
        if not running:
            retain(repository)
    return list(chosen)


def require_read(revisions: Iterable[Revision], specifications: Collection[str], *, force: bool) -> None:
    """Refuse to forget one whose state can not be read, unless by `force` and its full id; raises UnreadError."""
    for revision in revisions:
        # it may be sound on another day, but a disk that is broken for good must not bind anybody for ever
        if revision.unread and not (force and revision.id in specifications):
            raise UnreadError(
                f"{revision.state_problem}; it may be sound on another day; "
                f"'-r {revision.id} --force --reason TEXT' removes it for good"
            )


def too_much(history: Sequence[Revision], chosen: Collection[str], before: int) -> str | None:
    """Return why nobody should forget these revisions without a reason; None if it is not too much.

    Args:
        history: The revisions that are in use.
        chosen: Ids of those to forget.
        before: Number of revisions that were forgotten lately.
    """
    good = {revision.id for revision in history if not revision.doubtful}
    if good and good <= set(chosen):
        return "then no good revision is left"
    limit = max(3, (len(history) + before) // 3)
    if before + len(chosen) > limit:
        return f"of {len(history) + before} revisions, {limit} can be forgotten within a week; {before} were already"
    return None


def forgotten(lines: Iterable[Read], since: datetime) -> int:
    """Return how many revisions were forgotten since then, as the journal tells, and did not come back."""
    acts = {"forget": True, "undelete": False}
    known = {
        line.revision: acts[line.act]
        for line, _ in lines
        if line and line.act in acts and line.step is Step.DONE and line.time >= since
    }
    return sum(known.values())


def _chosen(repository: Repository, surveyed: Survey, specification: str) -> str:
    """Return the id of the revision to forget. Raises the same errors as `forget`."""
    records = repository.records
    try:
        return records.select(specification, surveyed).id
    except (DamageError, RevisionNotFoundError):
        # by its full id, what is damaged or lost can be given up, but not what is in the trash already
        if not records.holds(specification) or specification in {one.id for one in surveyed[0]}:
            raise
        return specification


def release(repository: Repository) -> bool:
    """Have the source drop all data that it keeps for the job; return False if it is not of that kind.

    Raises:
        RepositoryBusyError: a backup is running.
        BackyError: the plugin can not be loaded, or its source can not be reached.
    """
    if (source := _keeper(repository)) is None:
        return False
    with repository.locked(), repository.records.journal.act("release"):
        source.retain(())
    return True


def retain(repository: Repository) -> None:
    """Have the source drop the data that it keeps for removed revisions; log a warning if it can not.

    The caller holds `.backup`.
    """
    try:
        if (source := _keeper(repository)) is not None:
            source.retain([revision.id for revision in repository.records.history()])
    except Exception as error:  # a plugin may raise anything, and the revision is removed already
        log.warning("what the source keeps for forgotten revisions may still be there: %s", error)
        log.debug("this is where it happened:", exc_info=error)


def _keeper(repository: Repository) -> KeepingSource | None:
    """Return the source of a job if it keeps something for revisions, else None."""
    source = repository.source() if repository.config.source else None
    return source if isinstance(source, KeepingSource) else None


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
