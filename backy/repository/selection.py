"""The choice of a revision by SPEC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from backy.errors import RevisionNotFoundError


class Selectable(Protocol):
    """What SPEC looks at."""

    @property
    def id(self) -> str:
        """The id."""

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags in force."""


Found = TypeVar("Found", bound=Selectable)


def select(history: Sequence[Found], specification: str) -> Found:
    """Return the revision that SPEC names.

    Tries in this order: a number (0 is the newest), a full id, `last` or `latest`, a tag (its newest revision), and
    the beginning of an id that only one revision has.

    Args:
        history: The revisions, the oldest first.
        specification: SPEC as a user wrote it.

    Raises:
        RevisionNotFoundError: SPEC names none, or it begins several ids.
    """
    newest_first = list(reversed(history))
    if not newest_first:
        raise RevisionNotFoundError(f"no revision '{specification}': the repository has no complete revision yet")
    # a number wins over a tag of digits: '-r 0' always means the newest one
    if re.fullmatch(r"\d+", specification, re.ASCII):
        return _by_number(newest_first, int(specification))
    named = [revision for revision in newest_first if specification in {revision.id, "last", "latest"}]
    tagged = [revision for revision in newest_first if specification in revision.tags]
    if found := named or tagged:
        return found[0]
    # every id begins with an empty text, which is more likely an unset variable of a script than a wish
    matching = [revision for revision in newest_first if specification and revision.id.startswith(specification)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        ids = ", ".join(revision.id for revision in matching)
        raise RevisionNotFoundError(f"'{specification}' is ambiguous: it begins the ids {ids}")
    raise RevisionNotFoundError(
        f"no revision '{specification}'; SPEC is a number (0 is the newest), an id or its beginning, a tag, or 'last'"
    )


def _by_number(newest_first: Sequence[Found], number: int) -> Found:
    if number >= len(newest_first):
        last = len(newest_first) - 1
        raise RevisionNotFoundError(f"no revision {number}: they are numbered from 0, the newest, to {last}")
    return newest_first[number]
