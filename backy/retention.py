"""What expires, and why the rest is kept: pure functions of a schedule, the complete revisions, and the time.

A tag of the schedule expires when both are true: `keep` newer revisions have it, and it is older than `keep` of its
intervals. So neither a pause nor a burst of extra backups costs a revision that is wanted. A revision without tags is
removed. Nothing expires for the sake of a distrusted revision: it does not count among the newer ones. Tags that begin
with `manual:` never expire. A tag that is not in the schedule, or no more, is kept as long as the longest window of the
schedule, so that a renamed tag takes nothing away at once. The newest trusted revision is left alone in any case.

Whoever applies this does so after a successful backup only: while backups fail, nothing expires.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from backy.revision import Revision, Trust
from backy.schedule import MANUAL, Schedule, next_ideal


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


class _Standing(NamedTuple):
    """A revision among the others."""

    revision: Revision
    newer: defaultdict[str, int]
    """How many newer trusted revisions have each tag; valid until the next revision is asked for."""
    newest: bool
    """Whether no newer revision is trusted."""


def expiries(schedule: Schedule, history: Sequence[Revision], now: datetime) -> list[Expiry]:
    """Return what expires, the newest first; `history` is complete revisions in order of time."""
    rules = _Rules(schedule)
    found = []
    for revision, newer, newest in _standings(history):
        if newest:
            continue
        age = now - revision.timestamp
        remaining = tuple(tag for tag in revision.tags if rules.held(tag, newer[tag], age))
        if len(remaining) < len(revision.tags) or not remaining:
            found.append(Expiry(revision, remaining))
    return found


def holds(
    schedule: Schedule, shift: timedelta, history: Sequence[Revision], revision: Revision, now: datetime
) -> list[Hold]:
    """Return why `revision` of `history` is kept, in the order of its tags; nothing if it expires as a whole.

    `shift` is the job's spread.
    """
    rules = _Rules(schedule)
    _, newer, newest = next(standing for standing in _standings(history) if standing.revision.id == revision.id)
    found = []
    for tag in revision.tags:
        if rules.held(tag, newer[tag], now - revision.timestamp):
            rule, until = rules.reason(tag, newer[tag], revision.timestamp)
            if rule is Rule.COUNT:
                interval, keep = schedule[tag]
                last_needed = next_ideal(interval, shift, now) + (keep - newer[tag] - 1) * interval
                until = max(until or last_needed, last_needed)
            found.append(Hold(tag, rule, until))
    return found or ([Hold(None, Rule.NEWEST, None)] if newest else [])


def _standings(history: Sequence[Revision]) -> Iterator[_Standing]:
    """Go through the revisions from the newest to the oldest."""
    newer: defaultdict[str, int] = defaultdict(int)
    newest = True
    for revision in reversed(history):
        yield _Standing(revision, newer, newest)
        if revision.trust is not Trust.DISTRUSTED:
            newest = False
            for tag in revision.tags:
                newer[tag] += 1


class _Rules:
    """What a schedule says of single tags."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._windows = {name: tag.interval * tag.keep for name, tag in schedule.items()}
        self._longest = max(self._windows.values())

    def held(self, tag: str, newer: int, age: timedelta) -> bool:
        """Tell whether a tag does not expire yet: so many newer trusted revisions have it."""
        if tag in self._schedule:
            return newer < self._schedule[tag].keep or age <= self._windows[tag]
        return tag.startswith(MANUAL) or age <= self._longest

    def reason(self, tag: str, newer: int, timestamp: datetime) -> tuple[Rule, datetime | None]:
        """Say why a tag that is held is, and until when by its age alone."""
        if tag in self._schedule:
            return Rule.COUNT if newer < self._schedule[tag].keep else Rule.WINDOW, timestamp + self._windows[tag]
        if tag.startswith(MANUAL):
            return Rule.MANUAL, None
        return Rule.FORMER, timestamp + self._longest
