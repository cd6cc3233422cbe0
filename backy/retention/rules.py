"""What expires, and why the rest is kept: pure functions of a schedule, the complete revisions, and the time.

A tag of the schedule expires when both are true: `keep` newer revisions have it, and it is older than `keep` of its
intervals. So neither a pause nor a burst of extra backups costs a revision that is wanted. A revision without tags is
removed. Nothing expires for the sake of a distrusted revision: it does not count among the newer ones. Tags that begin
with `manual:` never expire. A tag that is not in the schedule, or no more, is kept as long as the longest window of the
schedule, so that a renamed tag takes nothing away at once. The newest trusted revision is left alone in any case.

Whoever applies this does so after a successful backup only: while backups fail, nothing expires.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from backy.repository.revision import Revision, Trust
from backy.retention.schedule import MANUAL, Schedule, next_ideal


class Expiry(NamedTuple):
    """A revision from which tags expire."""

    revision: Revision
    remaining: tuple[str, ...]
    """The tags that it keeps; without any it is removed."""

    @property
    def lost(self) -> tuple[str, ...]:
        """The tags that expire."""
        return tuple(tag for tag in self.revision.tags if tag not in self.remaining)


class Rule(StrEnum):
    """Why a tag keeps a revision."""

    MANUAL = "manual"
    """It was given by hand."""
    COUNT = "count"
    """Too few newer trusted revisions have it."""
    WINDOW = "window"
    """Enough newer ones have it, but the revision is too young."""
    FORMER = "former"
    """It is not in the schedule, and the revision is younger than the schedule's longest window."""
    NEWEST = "newest"
    """No tag does: it is the newest trusted revision, or newer than that."""


class Hold(NamedTuple):
    """One reason to keep a revision."""

    tag: str | None
    """None for the rule `NEWEST`."""
    rule: Rule
    until: datetime | None
    """When the reason is expected to end if all goes by the schedule; None if nobody can tell."""


def expiries(schedule: Schedule, history: Sequence[Revision], now: datetime) -> list[Expiry]:
    """Return what expires, the newest first; `history` is complete revisions in order of time."""
    rules = _Rules(schedule, now)
    found = []
    for revision, newest in rules.standings(history):
        if newest or (revision.tags and now - revision.timestamp <= rules.shortest):
            continue
        remaining = tuple([tag for tag in revision.tags if rules.held(tag, revision.timestamp)])
        if len(remaining) < len(revision.tags) or not remaining:
            found.append(Expiry(revision, remaining))
    return found


def holds(
    schedule: Schedule, shift: timedelta, history: Sequence[Revision], revision: Revision, now: datetime
) -> list[Hold]:
    """Return why `revision` of `history` is kept, in the order of its tags; nothing if it expires as a whole.

    `shift` is the job's spread.
    """
    rules = _Rules(schedule, now)
    newest = next(newest for other, newest in rules.standings(history) if other.id == revision.id)
    found = [rules.hold(tag, revision.timestamp, shift) for tag in revision.tags if rules.held(tag, revision.timestamp)]
    return found or ([Hold(None, Rule.NEWEST, None)] if newest else [])


class _Rules:
    """What a schedule says now of the tags of one revision after the other."""

    def __init__(self, schedule: Schedule, now: datetime) -> None:
        self._schedule = schedule
        self._now = now
        self._windows = {name: tag.interval * tag.keep for name, tag in schedule.items()}
        self._longest = max(self._windows.values())
        self.shortest = min(self._windows.values())
        """Up to what age no tag expires."""
        self._wanted = {name: tag.keep for name, tag in schedule.items()}
        """How many trusted revisions of each tag are wanted still, those newer than the present one being there."""

    def standings(self, history: Sequence[Revision]) -> Iterator[tuple[Revision, bool]]:
        """Go through the revisions from the newest to the oldest, and tell whether no newer one is trusted."""
        newest = True
        for revision in reversed(history):
            yield revision, newest
            if revision.trust is not Trust.DISTRUSTED:
                newest = False
                for tag in revision.tags:
                    if tag in self._wanted:
                        self._wanted[tag] -= 1

    def held(self, tag: str, timestamp: datetime) -> bool:
        """Tell whether a tag of the present revision does not expire yet."""
        if tag in self._wanted:
            return self._wanted[tag] > 0 or self._now - timestamp <= self._windows[tag]
        return tag.startswith(MANUAL) or self._now - timestamp <= self._longest

    def hold(self, tag: str, timestamp: datetime, shift: timedelta) -> Hold:
        """Say why a tag of the present revision does not expire yet."""
        if tag in self._wanted:
            interval, wanted = self._schedule[tag].interval, self._wanted[tag]
            until = _after(timestamp, self._windows[tag])
            if wanted <= 0:
                return Hold(tag, Rule.WINDOW, until)
            last_wanted = _after(next_ideal(interval, shift, self._now), (wanted - 1) * interval)
            return Hold(tag, Rule.COUNT, max(until, last_wanted) if until and last_wanted else None)
        if tag.startswith(MANUAL):
            return Hold(tag, Rule.MANUAL, None)
        return Hold(tag, Rule.FORMER, _after(timestamp, self._longest))


def _after(time: datetime, length: timedelta) -> datetime | None:
    """Return the time so much later; None if the calendar ends before."""
    try:
        return time + length
    except OverflowError:
        return None
