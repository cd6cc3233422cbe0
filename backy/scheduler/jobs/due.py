"""When a job is due: functions of its schedule, its name, its revisions and the time, and of clocks that are set.

A tag is missed if no complete revision has it since the start of its latest run. All times are UTC.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple, Self

from backy.repository.revision import Clock, Revision
from backy.retention.rules import EPOCH, Schedule, next_ideal
from backy.system.clocks import Instant, boottime

GRACE = timedelta(minutes=5)
"""A missed tag waits for the next run if that is not further away."""

SLA_FACTOR = 1.5
"""A job is late if its newest revision is older than this many of its smallest intervals."""

SMALLEST = timedelta(seconds=1)
"""Smaller jumps are those of a clock that is being adjusted, and harm nobody."""


class Past(NamedTuple):
    """The facts about a job's revisions that its schedule depends on."""

    since: datetime
    """When the job became known."""
    newest: datetime | None
    """Start of the newest complete revision that is not ahead of the clock."""
    tags: Mapping[str, datetime]
    """Start of each tag's newest complete revision that is not ahead of the clock."""
    ahead: tuple[str, ...] = ()
    """Ids of the revisions that are ahead of the clock, the latest one last. They count for nothing."""

    @classmethod
    def of(
        cls, history: Iterable[Revision], since: datetime, limit: datetime, began: Mapping[str, datetime] | None = None
    ) -> Self:
        """Sum up complete revisions in any order; those that began after `limit` are ahead of the clock.

        Args:
            history: The revisions.
            since: When the job became known.
            limit: The time, or a little later.
            began: What is `corrected`.
        """
        ordered = sorted(history, key=lambda revision: revision.timestamp)
        ahead = tuple([revision.id for revision in ordered if revision.timestamp > limit])
        past = [((began or {}).get(one.id, one.timestamp), one.tags) for one in ordered[: len(ordered) - len(ahead)]]
        past.sort(key=lambda one: one[0])
        # of the same tag, the latest revision wins
        latest = {tag: time for time, tags in past for tag in tags}
        return cls(since, past[-1][0] if past else None, latest, ahead)

    def depends_on(self, limit: datetime) -> bool:
        """Tell whether another sum may come out of the same revisions with this limit."""
        return bool(self.ahead) or (self.newest is not None and self.newest > limit)


def corrected(history: Iterable[Revision], now: Instant, allowed: timedelta) -> dict[str, datetime]:
    """Return when backups began, by their ids, that the clock of their time put later than that by more than `allowed`.

    Otherwise one that was made while the clock was ahead would count as new when the calendar has come to its time.
    """
    found, later = {}, now
    for revision in sorted(history, key=lambda revision: revision.seq, reverse=True):
        # an image that was imported may be of any time, and a copy has clocks of another machine
        if revision.boot is None or revision.boottime is None or revision.state.origin:
            continue
        latest = later.wall
        if revision.boot == later.boot and later.boottime is not None:
            latest -= timedelta(seconds=max(later.boottime - revision.boottime, 0.0))
        began = min(revision.timestamp, latest)
        if revision.timestamp - began > allowed:
            found[revision.id] = began
        # within a boot the other clock is right, also if this one was behind; across boots there is only this one
        later = Instant(latest if revision.boot == later.boot else began, revision.boot, revision.boottime)
    return found


class Due(NamedTuple):
    """A job's next run."""

    time: datetime
    tags: tuple[str, ...]
    """Sorted."""


def tolerance(schedule: Schedule) -> timedelta:
    """Return how far a revision may be ahead of the clock and count all the same."""
    # clocks of servers that are in order differ by seconds; more would let a job miss a run without a word
    return min(smallest_interval(schedule) / 10, GRACE)


def missed(schedule: Schedule, shift: timedelta, past: Past, now: datetime) -> set[str]:
    """Return the tags whose latest run was not made.

    In a job with revisions, a tag that none of them has is missed. A job without revisions misses nothing before its
    first run, and all of its tags afterwards.
    """
    if past.newest is None:
        first = min(next_ideal(tag.interval, shift, past.since) for tag in schedule.values())
        return set(schedule) if first <= now else set()
    latest = {name: next_ideal(tag.interval, shift, now) - tag.interval for name, tag in schedule.items()}
    return {name for name, start in latest.items() if past.tags.get(name, EPOCH) < start}


def next_due(schedule: Schedule, shift: timedelta, past: Past, now: datetime) -> Due:
    """Return the time and the tags of a job's next run.

    If no tag is missed, that is the next run of any tag. Missed tags are due at once, or together with the next run if
    that is at most `GRACE` away, or half the smallest interval if that is less. The first run has all tags.
    """
    runs = {name: next_ideal(tag.interval, shift, now) for name, tag in schedule.items()}
    ideal = min(runs.values())
    late = missed(schedule, shift, past, now)
    if late and ideal - now > min(GRACE, smallest_interval(schedule) / 2):
        return Due(now, tuple(sorted(late)))
    together = set(schedule) if past.newest is None else late | {name for name, time in runs.items() if time == ideal}
    return Due(ideal, tuple(sorted(together)))


def backoff(failures: int) -> timedelta:
    """Return how long a job waits after this many failures in a row: 2, 4, 8 .. 360 minutes."""
    # the exponent is limited, too: of a job that has failed for months, the power would be a huge number
    return timedelta(minutes=min(2 ** min(failures, 9), 360))


def smallest_interval(schedule: Schedule) -> timedelta:
    """Return the smallest interval of a job's tags."""
    return min(tag.interval for tag in schedule.values())


def late_from(schedule: Schedule, past: Past, sla: timedelta | None = None) -> datetime:
    """Return when a job violates its SLA unless it has a new revision before."""
    # a job without revisions has to succeed within its SLA, too, counted from when it became known
    return (past.newest or past.since) + (sla or smallest_interval(schedule) * SLA_FACTOR)


def by_interval(schedule: Schedule, tags: Iterable[str]) -> list[str]:
    """Sort tags for display: those of the schedule by interval, others before them."""
    return sorted(tags, key=lambda name: (schedule[name].interval if name in schedule else timedelta(), name))


class ClockWatch:
    """Compares the clock that anybody can set with one that nobody can."""

    def __init__(self, clock: Clock, boottime: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._boottime = boottime
        self._began = boottime()
        self._offset = self._now()

    @property
    def watched(self) -> timedelta:
        """How long the clock has been watched, by the other one."""
        return timedelta(seconds=self._boottime() - self._began)

    def jump(self) -> timedelta:
        """Return by how much the clock was set forward since the last call, less than zero if back."""
        before, self._offset = self._offset, self._now()
        jump = self._offset - before
        return timedelta(seconds=round(jump.total_seconds())) if abs(jump) >= SMALLEST else timedelta()

    def _now(self) -> datetime:
        # the start of the machine by the clock: it changes only if the clock is set
        return self._clock() - timedelta(seconds=self._boottime())
