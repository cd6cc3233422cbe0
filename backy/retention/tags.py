"""Check tags against a job's schedule, change the tags of a revision, and pin the one before an image shrank.

An image that is smaller than before, or has only zeroes where it had data, may have been lost before it was backed up.
So a tag holds the revision before, until somebody says that this was meant or it is too old for the schedule.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from backy.errors import DamageError, RevisionNotFoundError, UnknownTagError
from backy.image.stored import ZERO, ChunkMap
from backy.repository.config import JobConfig
from backy.repository.repository import Repository
from backy.repository.revision import MANUAL, PINNED, Birth, Revision, Shrunk, tag_problem
from backy.text.phrases import did_you_mean

log = logging.getLogger(__name__)
_Change = Callable[[set[str], set[str]], set[str]]
"""Returns the new tags, made from the old and the given ones."""
SHRUNK = f"{PINNED}shrunk"
"""The tag of a revision after which the image shrank."""


def check_tags(config: JobConfig, tags: Iterable[str]) -> None:
    """Make sure that tags are in the job's schedule, if it has one, or begin with `manual:`.

    Raises:
        UnknownTagError: one is not, and the text lists the schedule's tags; or no revision can have it.
    """
    # without a schedule there is nothing that a tag could be a slip of the pen of
    schedule = config.schedule or {}
    for tag in tags:
        if problem := tag_problem(tag):
            raise UnknownTagError(problem)
        if schedule and tag not in schedule and not tag.startswith(MANUAL):
            known = f"{did_you_mean(tag, schedule)}the schedule has: {', '.join(schedule)}"
            free = f"'{MANUAL}{tag}' never expires, and --force of 'backup' or 'tags' takes '{tag}' as it is"
            raise UnknownTagError(f"unknown tag '{tag}'; {known}. {free}")


def set_tags(repository: Repository, specification: str, tags: Iterable[str], *, force: bool = False) -> Revision:
    """Replace the tags of the revision that SPEC names; return it as it is now.

    Raises:
        UnknownTagError: a tag is not in the schedule, unless `force` is given.
        RepositoryBusyError: another command changes records.
        RevisionNotFoundError: there is no such revision.
    """
    return _change(repository, specification, tags, lambda _, given: given, force=force)


def add_tags(repository: Repository, specification: str, tags: Iterable[str], *, force: bool = False) -> Revision:
    """Add tags to the revision that SPEC names; return it as it is now. Raises the errors of `set_tags`."""
    return _change(repository, specification, tags, set.union, force=force)


def remove_tags(repository: Repository, specification: str, tags: Iterable[str]) -> Revision:
    """Remove tags from the revision that SPEC names; return it as it is now.

    Raises:
        RepositoryBusyError: another command changes records.
        RevisionNotFoundError: there is no such revision, or it lacks one of the tags.
    """
    # unchecked: a tag that the schedule no longer has can be removed
    return _change(repository, specification, tags, _without, force=True)


def _without(old: set[str], given: set[str]) -> set[str]:
    if missing := given - old:
        has = ", ".join(sorted(old)) or "none"
        raise RevisionNotFoundError(f"the revision does not have '{min(missing)}'; its tags are: {has}")
    return old - given


def _change(repository: Repository, specification: str, tags: Iterable[str], edit: _Change, *, force: bool) -> Revision:
    given = set(tags)
    if not force:
        check_tags(repository.config, given)
    with repository.changing():
        # looked up under the lock: before, a backup may end and SPEC name another revision
        revision = repository.records.select(specification)
        return retag(repository, revision, edit(set(revision.tags), given))


def retag(repository: Repository, revision: Revision, tags: Iterable[str], act: str = "tags") -> Revision:
    """Replace the tags of a revision; return it as it is now. The caller holds `.backup`."""
    return repository.records.change(revision, act, tags=tuple(sorted(set(tags))))


def pin_before_shrinking(
    repository: Repository, history: Sequence[Revision], birth: Birth, new: ChunkMap, parent: ChunkMap | None
) -> Shrunk | None:
    """Pin the last of `history` if the image has shrunk to one with the map `new`; return what it was, else None.

    `parent` is the map of the parent, which is not read again: maps of large images take much memory. The caller holds
    `.backup`, and writes the record afterwards: so no crash leaves it without the pin.
    """
    for known in reversed(history):
        with suppress(DamageError, RevisionNotFoundError):
            # read again: the backup may have put it in doubt
            before = repository.records.current(known)
            if before.doubtful:
                continue
            old = parent if parent and birth.parent == before.id else repository.records.read_map(before)
            break
    else:
        return None
    emptied = old.data_size() > 0 and all(index >= len(new) or new[index] == ZERO for index in old.data())
    if new.size >= old.size and not emptied:
        return None
    # whatever it was pinned for before, its time begins now
    repository.records.change(before, "pin", tags=tuple(sorted({*before.tags, SHRUNK})), pinned=birth.trusted_time)
    shrunk = Shrunk(before.id, old.size, old.data_size(), new.data_size())
    log.warning("revision %s %s; '%s' holds revision %s", birth.id, shrunk.to(new.size), SHRUNK, before.id)
    return shrunk


def accept(repository: Repository, specification: str | None = None) -> list[Revision]:
    """Take the pin from the revision before the one that SPEC names, or from all; return those that had it.

    Raises:
        RepositoryBusyError: a backup is running.
        RevisionNotFoundError: there is no such revision.
    """
    with repository.locked():
        pinned = [one for one in repository.records.history() if SHRUNK in one.tags]
        if specification is not None:
            shrunk = repository.records.select(specification).shrunk
            pinned = [one for one in pinned if shrunk and one.id == shrunk.revision]
        return [retag(repository, one, {*one.tags} - {SHRUNK}, "accept") for one in pinned]
