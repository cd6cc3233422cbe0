"""Which tags expire, and why the others are kept: pure functions of a schedule, the revisions and the time.

* A tag of the schedule expires when both are true: `keep` newer revisions have it, and it is older than `keep` of its
  intervals. So neither a pause nor a burst of extra backups costs a revision that is wanted.
* A tag that is not in the schedule expires when it is older than the longest window (`keep` intervals) of the schedule.
  So a renamed tag removes nothing at once.
* A tag that begins with `manual:` never expires.
* A revision without tags is removed.
* A revision is as old as the clock says, or as its trusted time says if that is less.
* A revision that is distrusted or wrong does not count among the newer ones.
* The newest revision that is neither keeps all of its tags, and so do those that are newer.

Apply these rules after a successful backup only: while backups fail, nothing expires.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from backy.repository.revision import Revision
from backy.retention.schedule import MANUAL, Schedule, next_ideal


class Expiry(NamedTuple):
    """A revision from which tags expire."""

    revision: Revision
    remaining: tuple[str, ...]
    """The tags that it keeps. A revision without any is removed."""

    @property
    def lost(self) -> tuple[str, ...]:
        """The tags that expire."""
        return tuple(tag for tag in self.revision.tags if tag not in self.remaining)


class Rule(StrEnum):
    """Why a tag keeps a revision."""

    MANUAL = "manual"
    """It was given by hand."""
    COUNT = "count"
    """Fewer than `keep` newer revisions have it."""
    WINDOW = "window"
    """Enough newer revisions have it, but the revision is too young."""
    FORMER = "former"
    """It is not in the schedule, and the revision is younger than the longest window of the schedule."""
    NEWEST = "newest"
    """No tag does: it is the newest revision that is not distrusted, or newer than that."""


class Hold(NamedTuple):
    """One reason to keep a revision."""

    tag: str | None
    """None for the rule `NEWEST`."""
    rule: Rule
    until: datetime | None
    """When the reason ends if all backups are made on time; None if that is not known."""


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
    rules = _Rules(schedule, now, trusted)
    found = []
    for revision, newest in rules.standings(history):
        # a revision younger than every window loses no tag, so there is no need to look at each of them
        if newest or (revision.tags and rules.age(revision) <= rules.shortest):
            continue
        remaining = tuple([tag for tag in revision.tags if rules.held(tag, revision)])
        if len(remaining) < len(revision.tags) or not remaining:
            found.append(Expiry(revision, remaining))
    return found


def holds(  # noqa: PLR0913, PLR0917  # two clocks come to what is asked about
    schedule: Schedule,
    shift: timedelta,
    history: Sequence[Revision],
    revision: Revision,
    now: datetime,
    trusted: datetime | None = None,
) -> list[Hold]:
    """Return the reasons to keep a revision, in the order of its tags; none if it expires as a whole.

    Args:
        schedule: The tags of the job.
        shift: The job's spread.
        history: The revisions, the oldest first.
        revision: One of them.
        now: The time.
        trusted: The trusted time; None if the clock is believed.
    """
    rules = _Rules(schedule, now, trusted)
    newest = next(newest for other, newest in rules.standings(history) if other.id == revision.id)
    found = [rules.hold(tag, revision, shift) for tag in revision.tags if rules.held(tag, revision)]
    return found or ([Hold(None, Rule.NEWEST, None)] if newest else [])


class _Rules:
    """Applies a schedule to one revision after the other, from the newest to the oldest."""

    def __init__(self, schedule: Schedule, now: datetime, trusted: datetime | None) -> None:
        self._schedule = schedule
        self._now = now
        self._trusted = trusted
        self._windows = {name: tag.interval * tag.keep for name, tag in schedule.items()}
        self._longest = max(self._windows.values())
        self.shortest = min(self._windows.values())
        """The age up to which no tag expires."""
        self._wanted = {name: tag.keep for name, tag in schedule.items()}
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
                    if tag in self._wanted:
                        self._wanted[tag] -= 1

    def age(self, revision: Revision) -> timedelta:
        """Return how old a revision is for certain."""
        by_clock = self._now - revision.timestamp
        return by_clock if self._trusted is None else min(by_clock, self._trusted - revision.record.trusted_time)

    def held(self, tag: str, revision: Revision) -> bool:
        """Tell whether a tag of the present revision is kept."""
        # enough newer revisions or a great age alone is not enough: only both together let it expire
        if tag in self._wanted:
            return self._wanted[tag] > 0 or self.age(revision) <= self._windows[tag]
        return tag.startswith(MANUAL) or self.age(revision) <= self._longest

    def hold(self, tag: str, revision: Revision, shift: timedelta) -> Hold:
        """Return the reason to keep a tag of the present revision, which `held` is true of."""
        if tag in self._wanted:
            interval, wanted = self._schedule[tag].interval, self._wanted[tag]
            until = _after(self._now, self._windows[tag] - self.age(revision))
            if wanted <= 0:
                return Hold(tag, Rule.WINDOW, until)
            # one more revision has the tag after each interval, until enough of them are newer
            last_wanted = _after(next_ideal(interval, shift, self._now), (wanted - 1) * interval)
            return Hold(tag, Rule.COUNT, max(until, last_wanted) if until and last_wanted else None)
        if tag.startswith(MANUAL):
            return Hold(tag, Rule.MANUAL, None)
        return Hold(tag, Rule.FORMER, _after(self._now, self._longest - self.age(revision)))


def _after(time: datetime, length: timedelta) -> datetime | None:
    """Return the time `length` after `time`; None if it is beyond the last year of the calendar."""
    try:
        return time + length
    except OverflowError:
        return None
