"""Forget revisions, those that a person names and those that expire, and get them back from the trash.

Of a machine with several disks all go together, and come back together; a repository of one image is as a machine with
one disk. Tags expire by the schedule in `config`. A revision without any tag is forgotten.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from backy import errors
from backy.api import KeepingSource
from backy.groups.group import Group, Together
from backy.plugins.events import Events
from backy.repository.journal import Read, Step
from backy.repository.repository import Repository
from backy.repository.revision import MANUAL, Clock, Disks, Revision, utc_now
from backy.repository.running import begin, births, end
from backy.repository.uses import require_unused
from backy.retention.purge import discard, may_go
from backy.retention.rules import Expiry, Mark, Plan, plan, read_mark, write_mark
from backy.retention.tags import retag
from backy.system.clocks import present
from backy.text.phrases import counted

log = logging.getLogger(__name__)
LATELY = timedelta(days=7)
"""Within this time, a person forgets no more than `too_much` allows."""
UNDELETED = f"{MANUAL}undeleted"
"""The tag of what came back: without it, the next `expire` might remove it again."""
_Members = Mapping[str, Revision]
"""The revisions of one instant by the names of the disks."""


def forget(  # noqa: PLR0913  # what a person says, and the edges of the machine
    found: Repository | Group,
    specifications: Sequence[str],
    reason: str | None = None,
    *,
    force: bool = False,
    clock: Callable[[], datetime] = utc_now,
    events: Events | None = None,
    dry_run: bool = False,
) -> list[str]:
    """Put the revisions that SPECs name into the trash, and drop what the source keeps for them; return their ids.

    What is damaged, lost, or left of a group, is removed at once, by its full id; and by `force` one whose state can
    not be read.

    Args:
        found: Has the revisions.
        specifications: Name them.
        reason: Why, for the journal.
        force: Whether to forget more than `too_much` allows, or what may be sound.
        clock: Returns the time.
        events: Has the plugins; None stands for the installed ones.
        dry_run: Whether only to return the ids; no plugin is asked.

    Raises:
        RepositoryBusyError: a backup is running that needs a revision, another command changes some, or a live
            restore uses one.
        RevisionNotFoundError: there is no such revision; nothing is forgotten.
        DamageError: the newest record is damaged, or what is newer is not whole, and SPEC is not a full id.
        RefusedError, PluginError: a plugin holds a revision back, or can not be asked; nothing is forgotten.
        ForgettingRefusedError: it is too much at a time, and `force` is false.
        UnreadError: a state can not be read now, and `force` is false, or SPEC is not a full id; nothing is forgotten.
    """
    with _held(found, events, beside=True) as held:
        now, there = clock(), held.survey()
        chosen = dict(_chosen(held, there, specification) for specification in specifications)
        # of a machine with several disks all locks are held, so that no backup runs
        for birth in births(found.directory) if held.running else ():
            for needed in chosen.keys() & {birth.id, birth.parent}:
                raise errors.RepositoryBusyError(f"the backup that runs needs {needed}; forget it when that has ended")
        for disk in held.disks.values():
            require_unused(disk.directory, *chosen)
        each = [(held.disks[name], one) for members in chosen.values() for name, one in members.items()]
        held.require_alone((one for _, one in each), "forget -r")
        _require_read((one for _, one in each), specifications, force=force)
        # by any of the disks: they are forgotten together, and one of them may be new
        before = max(forgotten(one.records.journal.read(), now - LATELY) for one in held.disks.values())
        history = [one.revision for one in there.whole if one.forgotten == {False}]
        if not force and (problem := too_much(history, chosen, before)):
            raise errors.ForgettingRefusedError(f"{problem}; '--force --reason TEXT' does it all the same")
        if dry_run:
            return list(chosen)
        # one whose record is damaged has nothing that a plugin could judge by
        for disk, revision in each:
            told = {"job": disk.job, "revision": revision.info}
            held.events.ask("backy_expiring", closed=True, **told, tags=revision.tags)
        held.discard(chosen, "forget", now, reason)
    return list(chosen)


def _require_read(revisions: Iterable[Revision], specifications: Collection[str], *, force: bool) -> None:
    """Refuse to forget one whose state can not be read, unless by `force` and its full id; raises UnreadError."""
    for revision in revisions:
        # it may be sound on another day, but a disk that is broken for good must not bind anybody for ever
        if revision.unread and not (force and revision.id in specifications):
            way = f"'-r {revision.id} --force --reason TEXT' removes it for good"
            raise errors.UnreadError(f"{revision.state_problem}; it may be sound on another day; {way}")


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
    done = (line for line, _ in lines if line and line.act in acts and line.step is Step.DONE and line.time >= since)
    return sum({line.revision: acts[line.act] for line in done}.values())


def due(found: Repository | Group, now: datetime) -> Plan:
    """Return what expires at `now`; nothing if there is no schedule or it is off."""
    history = found.history() if isinstance(found, Group) else found.records.history()
    return plan(found.config, history, read_mark(found.directory), present(now))


def expire(found: Repository | Group, clock: Clock, events: Events | None = None) -> Plan:
    """Remove expired tags, and revisions without any left; return what was done and waits. A purge frees the space.

    What a plugin holds back stays as it is. `events` has the plugins; None stands for the installed ones.

    Raises:
        RepositoryBusyError: another command uses the repository or the group.
        PluginError: a plugin that may hold back revisions can not be asked; nothing was removed.
    """
    with _held(found, events) as held:
        # under the lock, so that no tag changes between the decision and its execution
        now, groups = clock(), {one.id: one for one in held.together()}
        history = [one.revision for one in groups.values()]

        def allowed(expiry: Expiry) -> bool:
            members = groups[expiry.revision.id].members
            each = [(held.disks[name], Expiry(one, expiry.remaining)) for name, one in members.items()]
            return all(may_go(disk, held.events, "nothing of it expires", one) for disk, one in each)

        # all are asked first: if one plugin can not answer, nothing goes
        done, waiting = plan(found.config, history, read_mark(found.directory), present(now), allowed)
        # before anything goes: if this ends halfway, the next one lets less go and not more
        if history and found.config.schedule and found.config.expire:
            _remember(found.directory, history[-1], waiting, now)
        for expiry in done:
            for name, revision in groups[expiry.revision.id].members.items() if expiry.remaining else ():
                retag(held.disks[name], revision, {*revision.tags} & {*expiry.remaining}, "expire")
        gone = {one.revision.id: groups[one.revision.id].members for one in done if not one.remaining}
        held.discard(gone, "expire", now)
        for expiry in done:
            log.info("%s: expired %s, remaining %s", expiry.revision.id, expiry.lost, expiry.remaining)
    return Plan(done, waiting)


def _remember(directory: Path, newest: Revision, waiting: int, now: datetime) -> None:
    """Write down that revisions expire now, and log once a day that others wait."""
    before = read_mark(directory)
    told = before.told if before else None
    if waiting and (told is None or not timedelta() <= now - told < timedelta(days=1)):
        text = "%s to expire: the clock may be wrong, and no more go at a time than were made since, and one"
        log.warning(text, counted(waiting, "revision waits", "revisions wait"))
        told = now
    write_mark(directory, Mark(newest.seq, waiting, told))


def undelete(found: Repository | Group, revision_id: str, events: Events | None = None) -> Revision:
    """Get a revision back from the trash; return it as it is now, or what stands for all disks.

    It gets the tag `manual:undeleted`, which nothing expires. `events` has the plugins; None stands for the installed.

    Raises:
        RepositoryBusyError: another command uses the repository or the group.
        RevisionNotFoundError: it is not in the trash.
    """
    with _held(found, events) as held:
        there = [one for one in held.together(trash=True) if one.id.startswith(revision_id)]
        if len(there) != 1:
            answer = f"{len(there) or 'no'} revisions in the trash answer to '{revision_id}'"
            raise errors.RevisionNotFoundError(f"{answer}; 'backy status --trash' lists them")
        members = there[0].members
        held.require_alone(members.values(), "undelete")
        for name, revision in members.items():
            disk, tags = held.disks[name], tuple(sorted({*revision.tags, UNDELETED}))
            members[name] = disk.records.change(revision, "undelete", forgotten=None, tags=tags)
            disk.link_last()
            held.events.tell("backy_revision_undeleted", job=disk.job, revision=members[name].info)
    return there[0].revision


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


class _Survey(NamedTuple):
    """What there is, and what selects one of it by SPEC."""

    whole: list[Together]
    """Those in the trash as well."""
    partial: list[Together]
    select: Callable[[str], Together]


@dataclass(frozen=True)
class _Held:
    """The revisions of a machine while the locks of all its disks are held."""

    group: Group | None
    """None for a repository of one image."""
    disks: Mapping[str, Repository]
    """The repositories of the disks by their names; that of one image alone has an empty name."""
    events: Events
    running: bool = False
    """Whether a backup runs beside this."""

    def survey(self) -> _Survey:
        """Look at all revisions; each of one image alone is as a group of one."""
        if self.group:
            whole, partial, _ = self.group.survey()
            return _Survey(whole, partial, self.group.select)
        records = self.disks[""].records
        surveyed = records.survey(trash=True)
        whole = [Together({"": one}) for one in surveyed[0]]
        return _Survey(whole, [], lambda specification: Together({"": records.select(specification, surveyed)}))

    def together(self, *, trash: bool = False) -> list[Together]:
        """Return what is in use, or in the trash; log a warning for each record of one image alone that is damaged."""
        if self.group:
            return self.group.together(trash=trash)
        history = self.disks[""].records.history(trash=trash)
        return [Together({"": one}) for one in history if bool(one.state.forgotten) == trash]

    def require_alone(self, revisions: Iterable[Revision], command: str) -> None:
        """Refuse to change of one disk what others have, too; raises RepositoryError with the `command` for all."""
        directory = next(iter(self.disks.values())).directory
        for revision in revisions if self.group is None else ():
            for disk in {*revision.group.disks} - {directory.name} if revision.group else ():
                # a disk that was copied without the others is alone
                if (directory.parent / disk / f"{revision.id}.rev").exists():
                    way = f"'backy -b {directory.parent} {command} {revision.id}' is for all of them"
                    raise errors.RepositoryError(f"{revision.id} is of one instant with other disks; {way}")

    def discard(self, chosen: Mapping[str, _Members], act: str, now: datetime, reason: str | None = None) -> None:
        """Put revisions of all disks into the trash, or remove what the trash can not keep; tell the sources."""
        for revision_id, members in chosen.items():
            if self.group and not self.group.config.trash:
                # no state tells of what is removed: if this ends halfway, the next command removes the rest
                begin(self.group.directory, Disks(revision_id, tuple(members)))
            for name, disk in self.disks.items():
                if revision := members.get(name):
                    discard(disk, revision, act, now, reason)
                    self.events.tell("backy_revision_removed", job=disk.job, revision=revision.info)
                elif disk.records.holds(revision_id):
                    # its record is damaged
                    disk.remove(revision_id, act, reason)
            if self.group:
                end(self.group.directory, revision_id)
        # Once for all, as a source may be far away. None is asked beside a backup: what it keeps goes with the next
        # removal.
        for disk in self.disks.values() if chosen and not self.running else ():
            retain(disk)


@contextmanager
def _held(found: Repository | Group, events: Events | None, *, beside: bool = False) -> Iterator[_Held]:
    """Hold the locks of a repository, or of all disks; of one image alone `beside` a backup that runs, if need be."""
    with events or Events.installed(found.config.hooks) as plugins:
        if isinstance(found, Group):
            with found.locked() as disks:
                yield _Held(found, disks, plugins)
        else:
            with found.changing() if beside else found.locked() as running:
                yield _Held(None, {"": found}, plugins, bool(running))


def _chosen(held: _Held, there: _Survey, specification: str) -> tuple[str, _Members]:
    """Return the id and the revisions of what to forget, which may be none. Raises the same errors as `forget`."""
    try:
        found = there.select(specification)
    except (errors.DamageError, errors.RevisionNotFoundError):
        # by its full id, what is damaged, lost or not whole can be given up, but not what is in the trash already
        held_here = any(disk.records.holds(specification) for disk in held.disks.values())
        if not held_here or specification in {one.id for one in there.whole}:
            raise
        return specification, next((one.members for one in there.partial if one.id == specification), {})
    return found.id, found.members
