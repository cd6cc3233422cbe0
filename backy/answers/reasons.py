"""Why a revision is kept, and until when: what the rules of `backy.retention.rules` mean for it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from backy.repository.revision import MANUAL, PINNED, Revision
from backy.retention.rules import Rules, Schedule, next_ideal


class Rule(StrEnum):
    """Why a tag keeps a revision."""

    MANUAL = "manual"
    """It was given by hand."""
    COUNT = "count"
    """Fewer than `keep` newer revisions have it."""
    WINDOW = "window"
    """Enough newer revisions have it, but the revision is too young."""
    PINNED = "pinned"
    """Something happened after it, and nobody has said that it was meant."""
    FORMER = "former"
    """It is not in the schedule, and the revision is younger than the longest window of the schedule."""
    NEWEST = "newest"
    """No tag does: it is the newest revision that is not in doubt, or newer than that."""


class Hold(NamedTuple):
    """One reason to keep a revision."""

    tag: str | None
    """None for the rule `NEWEST`."""
    rule: Rule
    until: datetime | None
    """When the reason ends if all backups are made on time; None if that is not known."""


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
    rules = Rules(schedule, now, trusted)
    newest = next(newest for other, newest in rules.standings(history) if other.id == revision.id)

    def hold(tag: str) -> Hold:
        age = rules.age(revision)
        if tag in schedule:
            until = _after(now, rules.windows[tag] - age)
            if rules.wanted[tag] <= 0:
                return Hold(tag, Rule.WINDOW, until)
            # one more revision has the tag after each interval, until enough of them are newer
            interval = schedule[tag].interval
            last_wanted = _after(next_ideal(interval, shift, now), (rules.wanted[tag] - 1) * interval)
            return Hold(tag, Rule.COUNT, max(until, last_wanted) if until and last_wanted else None)
        if tag.startswith(MANUAL):
            return Hold(tag, Rule.MANUAL, None)
        rule = Rule.PINNED if tag.startswith(PINNED) else Rule.FORMER
        return Hold(tag, rule, _after(now, rules.longest - rules.age_of(tag, revision)))

    found = [hold(tag) for tag in revision.tags if rules.held(tag, revision)]
    return found or ([Hold(None, Rule.NEWEST, None)] if newest else [])


def _after(time: datetime, length: timedelta) -> datetime | None:
    """Return the time `length` after `time`; None if it is beyond the last year of the calendar."""
    try:
        return time + length
    except OverflowError:
        return None
