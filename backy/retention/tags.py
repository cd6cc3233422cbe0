"""Check tags against a job's schedule, and change the tags of a revision."""

from collections.abc import Callable, Iterable

from backy.errors import RevisionNotFoundError, UnknownTagError
from backy.repository.config import JobConfig
from backy.repository.repository import Repository
from backy.repository.revision import MANUAL, Revision, tag_problem
from backy.text.phrases import did_you_mean

_Change = Callable[[set[str], set[str]], set[str]]
"""Returns the new tags, made from the old and the given ones."""


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
            raise UnknownTagError(
                f"unknown tag '{tag}'; {did_you_mean(tag, schedule)}the schedule has: {', '.join(schedule)}. "
                f"'{MANUAL}{tag}' never expires, and --force takes '{tag}' as it is"
            )


def set_tags(repository: Repository, specification: str, tags: Iterable[str], *, force: bool = False) -> Revision:
    """Replace the tags of the revision that SPEC names; return it as it is now.

    Raises:
        UnknownTagError: a tag is not in the schedule, unless `force` is given.
        RepositoryBusyError: another command changes records.
        RevisionNotFoundError: there is no such revision.
    """
    return _change(repository, specification, _checked(repository, tags, force=force), lambda _, given: given)


def add_tags(repository: Repository, specification: str, tags: Iterable[str], *, force: bool = False) -> Revision:
    """Add tags to the revision that SPEC names; return it as it is now. Raises the errors of `set_tags`."""
    return _change(repository, specification, _checked(repository, tags, force=force), set.union)


def remove_tags(repository: Repository, specification: str, tags: Iterable[str]) -> Revision:
    """Remove tags from the revision that SPEC names; return it as it is now.

    Raises:
        RepositoryBusyError: another command changes records.
        RevisionNotFoundError: there is no such revision, or it lacks one of the tags.
    """
    # unchecked: a tag that the schedule no longer has can be removed
    return _change(repository, specification, set(tags), _without)


def _checked(repository: Repository, tags: Iterable[str], *, force: bool) -> set[str]:
    given = set(tags)
    if not force:
        check_tags(repository.config, given)
    return given


def _without(old: set[str], given: set[str]) -> set[str]:
    if missing := given - old:
        raise RevisionNotFoundError(
            f"the revision does not have '{min(missing)}'; its tags are: {', '.join(sorted(old)) or 'none'}"
        )
    return old - given


def _change(repository: Repository, specification: str, given: set[str], change: _Change) -> Revision:
    with repository.changing():
        # looked up under the lock: before, a backup may end and SPEC name another revision
        revision = repository.records.select(specification)
        return retag(repository, revision, change(set(revision.tags), given))


def retag(repository: Repository, revision: Revision, tags: Iterable[str], act: str = "tags") -> Revision:
    """Replace the tags of a revision; return it as it is now. The caller holds `.backup`."""
    return repository.records.change(revision, act, tags=tuple(sorted(set(tags))))
