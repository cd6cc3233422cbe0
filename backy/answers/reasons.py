"""Why a revision is kept, and until when: what the rules of `backy.retention.rules` mean for it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from backy.config import format_duration
from backy.repository.config import JobConfig
from backy.repository.revision import MANUAL, PINNED, Revision, trusted_now
from backy.retention.rules import Rules, next_ideal, spread
from backy.system.clocks import present
from backy.text.phrases import counted


class Hold(msgspec.Struct, frozen=True):
    """One reason to keep a revision."""

    tag: str | None
    """The tag that keeps it; None if it needs none."""
    until: datetime | None
    """When the reason ends if all backups are made on time; None if that is not known."""
    cause: str
    """The rule that keeps it, in the words of the configuration."""


def reasons(config: JobConfig, job: str, history: Sequence[Revision], now: datetime) -> dict[str, list[Hold]]:
    """Return by id why each revision of the job's `history` is kept; nothing of one that is not."""
    # Told apart from a tag that never expires: here no tag has a meaning.
    if not config.schedule or not config.expire:
        cause = "config says 'expire: false'" if config.schedule else "config has no schedule"
        return {one.id: [Hold(None, None, f"the repository's {cause}")] for one in history}
    rules = Rules(config.schedule, now, trusted_now(history, present(now), config.allowance))
    shift = spread(job, config.schedule)
    # one after the other: the rules count what is newer than each of them
    return {one.id: holds(rules, shift, one, newest=newest) for one, newest in rules.standings(history)}


def holds(rules: Rules, shift: timedelta, revision: Revision, *, newest: bool) -> list[Hold]:
    """Return the reasons to keep a revision, in the order of its tags; none if it expires as a whole.

    Args:
        rules: Those of the job's schedule, now.
        shift: The job's spread.
        revision: That at which the rules stand.
        newest: Whether all newer ones are in doubt.
    """

    def hold(tag: str) -> Hold:
        if tag in rules.schedule:
            interval, keep = rules.schedule[tag].interval, rules.schedule[tag].keep
            until = _after(rules.now, rules.windows[tag] - rules.age(revision))
            if rules.wanted[tag] <= 0:
                newer, times = counted(keep, "newer one has", "newer ones have"), counted(keep, "time")
                return Hold(tag, until, f"{newer} it, but it is younger than {times} {format_duration(interval)}")
            # one more revision has the tag after each interval, until enough of them are newer
            last_wanted = _after(next_ideal(interval, shift, rules.now), (rules.wanted[tag] - 1) * interval)
            until = max(until, last_wanted) if until and last_wanted else None
            return Hold(tag, until, f"it is one of the newest {keep}")
        if tag.startswith(MANUAL):
            return Hold(tag, None, "tags that begin with 'manual:' never expire")
        cause = f"the schedule does not have it, and keeps nothing longer than {format_duration(rules.longest)}"
        if tag.startswith(PINNED):
            cause = "the image shrank after this revision; 'backy accept' says that it was meant"
        return Hold(tag, _after(rules.now, rules.longest - rules.age_of(tag, revision)), cause)

    found = [hold(tag) for tag in revision.tags if rules.held(tag, revision)]
    # no tag keeps the newest revision that is not in doubt, and those that are newer than that
    last = Hold(None, None, "the newest revision that is not in doubt is never removed by the schedule")
    return found or ([last] if newest else [])


def _after(time: datetime, length: timedelta) -> datetime | None:
    """Return the time `length` after `time`; None if it is beyond the last year of the calendar."""
    try:
        return time + length
    except OverflowError:
        return None
