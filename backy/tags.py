"""Tags of a job: those that its schedule has, and changing those of a revision."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import msgspec

from backy.config import JobConfig
from backy.errors import UnknownTagError
from backy.repository import Repository
from backy.revision import Revision
from backy.schedule import MANUAL, unknown_tags


def check_tags(config: JobConfig, tags: Iterable[str]) -> None:
    """See that tags are in the job's schedule, if it has one, or begin with `manual:`.

    Raises:
        UnknownTagError: one is not; the text says which there are.
    """
    schedule = config.schedule or {}
    for tag in unknown_tags(schedule, tags) if schedule else []:
        near = difflib.get_close_matches(tag, schedule, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UnknownTagError(
            f"unknown tag '{tag}'; {hint}the schedule has: {', '.join(schedule)}. "
            f"'{MANUAL}{tag}' never expires, and --force takes '{tag}' as it is"
        )


def retag(repository: Repository, revision: Revision, tags: Iterable[str]) -> Revision:
    """Give a revision other tags; nobody else may change the repository meanwhile."""
    changed = msgspec.structs.replace(revision, tags=tuple(sorted(set(tags))))
    if changed != revision:
        repository.write_record(changed)
    return changed
