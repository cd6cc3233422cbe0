"""Tags of a job: those that its schedule has, and changing those of a revision."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from backy.errors import RevisionNotFoundError, UnknownTagError
from backy.repository.config import JobConfig
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.retention.schedule import MANUAL, unknown_tags
from backy.system.locking import BACKUP_LOCK, exclusive
from backy.text.phrases import did_you_mean


def check_tags(config: JobConfig, tags: Iterable[str]) -> None:
    """See that tags are in the job's schedule, if it has one, or begin with `manual:`.

    Raises:
        UnknownTagError: one is not; the text says which there are.
    """
    schedule = config.schedule or {}
    for tag in unknown_tags(schedule, tags) if schedule else []:
        raise UnknownTagError(
            f"unknown tag '{tag}'; {did_you_mean(tag, schedule)}the schedule has: {', '.join(schedule)}. "
            f"'{MANUAL}{tag}' never expires, and --force takes '{tag}' as it is"
        )


def set_tags(repository: Repository, specification: str, tags: Iterable[str], *, force: bool = False) -> Revision:
    """Replace the tags of the revision that SPEC stands for; return its new record.

    Raises:
        UnknownTagError: a tag is not in the schedule, unless `force` is given.
        RepositoryBusyError: a backup is running.
        RevisionNotFoundError: there is no such revision.
    """
    given = set(tags)
    if not force:
        check_tags(repository.config, given)
    return _change(repository, specification, lambda _: given)


def add_tags(repository: Repository, specification: str, tags: Iterable[str], *, force: bool = False) -> Revision:
    """Add tags to those of the revision that SPEC stands for; return its new record.

    Raises what `set_tags` raises.
    """
    given = set(tags)
    if not force:
        check_tags(repository.config, given)
    return _change(repository, specification, lambda old: old | given)


def remove_tags(repository: Repository, specification: str, tags: Iterable[str]) -> Revision:
    """Remove tags of the revision that SPEC stands for; return its new record.

    Raises:
        RepositoryBusyError: a backup is running.
        RevisionNotFoundError: there is no such revision, or it does not have one of the tags.
    """
    given = set(tags)

    def without(old: set[str]) -> set[str]:
        if missing := given - old:
            raise RevisionNotFoundError(
                f"the revision does not have '{min(missing)}'; its tags are: {', '.join(sorted(old)) or 'none'}"
            )
        return old - given

    return _change(repository, specification, without)


def _change(repository: Repository, specification: str, change: Callable[[set[str]], set[str]]) -> Revision:
    with exclusive(repository.directory, BACKUP_LOCK):
        # SPEC is looked up only now: which revision it stands for may change until nobody else may write
        revision = repository.records.select(specification)
        return retag(repository, revision, change(set(revision.tags)))


def retag(repository: Repository, revision: Revision, tags: Iterable[str]) -> Revision:
    """Replace the tags of a revision; the caller holds the lock `.backup`."""
    changed = msgspec.structs.replace(revision, tags=tuple(sorted(set(tags))))
    if changed != revision:
        repository.records.write(changed)
    return changed
