"""When a job is due: pure functions of its schedule, its name, what it has done, and the time.

Each tag of a schedule has a run at fixed times, one interval apart, shifted by an offset that the job's name alone
decides: so load is spread over the day without anybody's doing, and a restart changes nothing. A tag is missed while no
complete revision has it since its latest run should have begun. All times are UTC.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from backy.repository.config import ScheduledTag
from backy.repository.revision import Revision

EPOCH = datetime(1, 1, 1, tzinfo=UTC)
"""Where intervals are counted from, so a week begins at no day in particular."""

GRACE = timedelta(minutes=5)
"""What was missed waits for a run that is no further away than this."""

SLA_FACTOR = 1.5
"""How many of its smallest intervals a job may be without a new revision."""

MANUAL = "manual:"
"""Tags that begin so are given by hand: they are in no schedule and never expire."""

_LONGEST_BACKOFF = 360
_SECOND = timedelta(seconds=1)


Schedule = Mapping[str, ScheduledTag]
"""The tags of a job. There is at least one."""


@dataclass(frozen=True)
class Past:
    """What a job has done so far, as far as its schedule needs to know."""

    since: datetime
    """When the job became known."""
    newest: datetime | None
    """Start of the newest complete revision."""
    tags: Mapping[str, datetime]
    """Start of each tag's newest complete revision."""

    @classmethod
    def of(cls, history: Iterable[Revision], since: datetime) -> Past:
        """Sum up complete revisions in any order."""
        tags: dict[str, datetime] = {}
        newest: datetime | None = None
        for revision in history:
            newest = max(newest or revision.timestamp, revision.timestamp)
            for tag in revision.tags:
                tags[tag] = max(tags.get(tag, revision.timestamp), revision.timestamp)
        return cls(since, newest, tags)


class Due(NamedTuple):
    """A job's next run."""

    time: datetime
    tags: tuple[str, ...]
    """Sorted."""


def spread(job: str, schedule: Schedule) -> timedelta:
    """Return by how much a job's runs are shifted: whole seconds, at most its longest interval; as in backy 2."""
    seed = int(hashlib.md5(job.encode(), usedforsecurity=False).hexdigest(), 16)
    longest = max(tag.interval for tag in schedule.values()) // _SECOND
    return random.Random(seed).randint(0, longest) * _SECOND  # noqa: S311  # it shall be guessed


def next_ideal(interval: timedelta, shift: timedelta, now: datetime) -> datetime:
    """Return when the next run of a tag begins, strictly after `now`; `shift` is the job's spread."""
    return now + interval - (now - EPOCH - shift) % interval


def missed(schedule: Schedule, shift: timedelta, past: Past, now: datetime) -> set[str]:
    """Return the tags whose latest run has not been made.

    A tag that a job with revisions never had is missed. A job without any revision misses nothing before its first
    run, and then all of its tags.
    """
    if past.newest is None:
        first = min(next_ideal(tag.interval, shift, past.since) for tag in schedule.values())
        return set(schedule) if first <= now else set()
    return _late(schedule, past, {name: next_ideal(tag.interval, shift, now) for name, tag in schedule.items()})


def _late(schedule: Schedule, past: Past, upcoming: Mapping[str, datetime]) -> set[str]:
    """Return the tags that no revision has since the run before the one that is to come."""
    made = past.tags
    return {name for name, time in upcoming.items() if made.get(name, EPOCH) < time - schedule[name].interval}


def next_due(schedule: Schedule, shift: timedelta, past: Past, now: datetime) -> Due:
    """Return when a job runs next, and the tags of that run.

    Without anything missed, that is the next run of any tag. What was missed is made up for at once, or together with
    the next run if that is no more than `GRACE` away (half an interval for tags that run more often). A first run
    takes all tags.
    """
    runs = {name: next_ideal(tag.interval, shift, now) for name, tag in schedule.items()}
    ideal = min(runs.values())
    late = _late(schedule, past, runs) if past.newest else missed(schedule, shift, past, now)
    if late and ideal - now > min(GRACE, smallest_interval(schedule) / 2):
        return Due(now, tuple(sorted(late)))
    together = set(schedule) if past.newest is None else late | {name for name, time in runs.items() if time == ideal}
    return Due(ideal, tuple(sorted(together)))


def backoff(failures: int) -> timedelta:
    """Return how long a job waits after so many failures in a row: 2, 4, 8 .. 360 minutes."""
    return timedelta(minutes=min(2 ** min(failures, 9), _LONGEST_BACKOFF))


def smallest_interval(schedule: Schedule) -> timedelta:
    """Return how often a job makes a revision at least."""
    return min(tag.interval for tag in schedule.values())


def sla(schedule: Schedule) -> timedelta:
    """Return how old the newest complete revision may be."""
    return smallest_interval(schedule) * SLA_FACTOR


def overdue(schedule: Schedule, past: Past, now: datetime) -> timedelta:
    """Return by how much a job is behind its SLA, zero while it keeps it.

    A job that has no revision yet is measured from when it became known: it has to succeed within its SLA, too.
    """
    return max(now - (past.newest or past.since) - sla(schedule), timedelta())


def by_interval(schedule: Schedule, tags: Iterable[str]) -> list[str]:
    """Sort tags for display: those of the schedule by their intervals, others before them."""
    return sorted(tags, key=lambda name: (schedule[name].interval if name in schedule else timedelta(), name))


def unknown_tags(schedule: Container[str], tags: Iterable[str]) -> list[str]:
    """Return the tags that are neither in the schedule nor given by hand."""
    return [tag for tag in tags if tag not in schedule and not tag.startswith(MANUAL)]
