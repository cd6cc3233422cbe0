"""Which tags expire: pure functions of a schedule, the revisions and the time.

* A tag of the schedule expires when both are true: `keep` newer revisions have it, and it is older than `keep` of its
  intervals. So neither a pause nor a burst of extra backups costs a revision that is wanted.
* A tag that is not in the schedule expires when it is older than the longest window (`keep` intervals) of the schedule.
  So a renamed tag removes nothing at once.
* A tag that begins with `manual:` never expires.
* The age of a tag that begins with `pinned:` counts from when it was given.
* A revision without tags is removed.
* A revision is as old as the clock says, or as its trusted time says if that is less.
* A revision that is distrusted or wrong does not count among the newer ones.
* The newest revision that is neither keeps all of its tags, and so do those that are newer.

Apply these rules after a successful backup only: while backups fail, nothing expires.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from backy.repository.revision import MANUAL, PINNED, Revision
from backy.retention.schedule import Schedule


class Expiry(NamedTuple):
    """A revision from which tags expire."""

    revision: Revision
    remaining: tuple[str, ...]
    """The tags that it keeps. A revision without any is removed."""

    @property
    def lost(self) -> tuple[str, ...]:
        """The tags that expire."""
        return tuple(tag for tag in self.revision.tags if tag not in self.remaining)


def expiries(
    schedule: Schedule, history: Sequence[Revision], now: datetime, trusted: datetime | None = None
) -> list[Expiry]:
    """Return the revisions of which tags expire, the newest first.

    Args:
        schedule: The tags of the job.
        history: The revisions, the oldest first.
        now: The time.
        trusted: The trusted time; None if the clock is believed.
    """
    rules = Rules(schedule, now, trusted)
    found = []
    for revision, newest in rules.standings(history):
        # a revision younger than every window loses no tag, so there is no need to look at each of them
        # of one whose state can not be read now, nobody knows the tags
        if newest or revision.unread or (revision.tags and rules.age(revision) <= rules.shortest):
            continue
        remaining = tuple([tag for tag in revision.tags if rules.held(tag, revision)])
        if len(remaining) < len(revision.tags) or not remaining:
            found.append(Expiry(revision, remaining))
    return found


class Rules:
    """Applies a schedule to one revision after the other, from the newest to the oldest."""

    def __init__(self, schedule: Schedule, now: datetime, trusted: datetime | None) -> None:
        self._now = now
        self._trusted = trusted
        self.windows = {name: tag.interval * tag.keep for name, tag in schedule.items()}
        """The age up to which no tag of the schedule expires."""
        self.longest = max(self.windows.values())
        """The age up to which no other tag expires."""
        self.shortest = min(self.windows.values())
        """The age up to which no tag expires."""
        self.wanted = {name: tag.keep for name, tag in schedule.items()}
        """How many more revisions of each tag are wanted, apart from those newer than the present one."""

    def standings(self, history: Sequence[Revision]) -> Iterator[tuple[Revision, bool]]:
        """Yield the revisions from the newest on, and whether all newer ones are in doubt."""
        newest = True
        for revision in reversed(history):
            yield revision, newest
            # only now: a revision does not count among those that are newer than itself
            if not revision.doubtful:
                newest = False
                for tag in revision.tags:
                    if tag in self.wanted:
                        self.wanted[tag] -= 1

    def age(self, revision: Revision) -> timedelta:
        """Return how old a revision is for certain."""
        by_clock = self._now - revision.timestamp
        return by_clock if self._trusted is None else min(by_clock, self._trusted - revision.trusted_time)

    def held(self, tag: str, revision: Revision) -> bool:
        """Tell whether a tag of the present revision is kept."""
        # enough newer revisions or a great age alone is not enough: only both together let it expire
        if tag in self.wanted:
            return self.wanted[tag] > 0 or self.age(revision) <= self.windows[tag]
        return tag.startswith(MANUAL) or self.age_of(tag, revision) <= self.longest

    def age_of(self, tag: str, revision: Revision) -> timedelta:
        """Return how old a tag is that the schedule does not have."""
        if tag.startswith(PINNED) and revision.state.pinned:
            return min(self._now, self._trusted or self._now) - revision.state.pinned
        return self.age(revision)
