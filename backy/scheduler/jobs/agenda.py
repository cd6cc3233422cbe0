"""Decides which job runs when. Pure: it uses no clock, no process and no file.

A job waits for its time, then for a slot of its pool, runs, and waits again. The driver of an agenda passes the time,
starts what `start` returns, and reports the end of each run to `finish`. The daemon drives it with real processes, a
simulation without any. Within a pool the job that violates its service level first runs first.
"""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import NamedTuple

from backy.retention.rules import EPOCH, Schedule, next_ideal, spread
from backy.scheduler.configuration.hours import DAY, Hours
from backy.scheduler.jobs.due import SLA_FACTOR, Due, Past, backoff, late_from, missed, next_due, smallest_interval

BUSY_RETRY = timedelta(minutes=2)
"""Pause before the next attempt if another command holds the repository."""

FAST = timedelta(minutes=10)
"""A job whose newest revision took less time runs in the fast pool."""


class Pool(StrEnum):
    """Pools of slots. Fast jobs have slots of their own, so that they do not wait for slow ones."""

    FAST = "fast"
    SLOW = "slow"
    COPY = "copy"
    """Copies wait for networks, and for no backup."""
    SCRUB = "scrub"
    """One at a time reads all of a repository."""
    DRILL = "drill"
    """One at a time starts a machine."""


BACKUPS = {Pool.FAST, Pool.SLOW}
TURNS = {Pool.SCRUB, Pool.DRILL}


class Phase(StrEnum):
    """The state of a job, in the words that users see."""

    UNKNOWN = "looking at its revisions"
    WAITING = "waiting for deadline"
    PAUSED = "paused"
    """Waiting for the end of a pause, though it is due before."""
    FAILED = "failed"
    """Waiting for the next attempt."""
    QUEUED = "waiting for worker slot"
    RUNNING = "running"


class Outcome(Enum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    BUSY = "busy"
    """Another command held the repository. This is no failure of the job."""
    CANCELLED = "cancelled"
    """An operator ended it. This is no failure either."""


class Result(NamedTuple):
    """The result of a run."""

    outcome: Outcome
    error: str | None = None
    """What failed; set also if the backup is done and only a later step failed."""
    put_off: bool = False
    """Whether expiry or purge could not be done, as other commands use the repository."""
    full: bool = False
    """Whether the backup failed as a disk is full."""
    occupied: int | None = None
    """Bytes that the repository takes afterwards; None if nobody knows."""
    shared: int | None = None
    """How many of these the pool has, too."""


@dataclass(eq=False)
class Entry:
    """A job on the agenda."""

    name: str
    schedule: Schedule
    shift: timedelta
    past: Past
    """The revisions that count for the schedule; without any until the repository was scanned."""
    pool: Pool = Pool.SLOW
    phase: Phase = Phase.UNKNOWN
    due: Due | None = None
    """The next run, or the current one if the job is queued or running."""
    failures: int = 0
    """Consecutive failed runs."""
    retry: datetime | None = None
    """Time of the next attempt after a failure, due or not. If busy or cancelled: no attempt before this time."""
    urgent: bool = False
    """Whether an operator asked for a run now."""
    asked: Sequence[str] = ()
    """The tags that the operator wants instead of those that are due."""
    paused: datetime | None = None
    """Until when only an operator starts a run."""
    copied: datetime | None = None
    """When the last copy, scrub or drill began that succeeded: one is due by that, whatever there was to do."""
    sla: timedelta | None = None
    """How old the newest revision may become; None for what the schedule allows."""
    hours: Hours | None = None
    """When a run may begin that nobody has asked for; None for any time."""
    ticket: int = field(default=0, repr=False)
    """Number of its only valid entry in the heaps; entries with another ticket are void."""

    @property
    def runs(self) -> Past:
        """What has run for the schedule."""
        if self.pool in BACKUPS:
            return self.past
        tags = dict.fromkeys(self.schedule, self.copied) if self.copied else {}
        return Past(self.past.since, self.copied, tags)

    def late(self, past: Past) -> datetime:
        """Return when a job with this past violates its SLA unless it has a new revision before."""
        late, shortest = late_from(self.schedule, past, self.sla), smallest_interval(self.schedule)
        opens = self.opens(late)
        # of a job with shorter intervals than it waits each day, nobody expects runs outside of its hours
        if self.hours and opens > late and (self.sla or shortest * SLA_FACTOR) < DAY - self.hours.length:
            return opens + shortest / 2
        return late

    def opens(self, time: datetime) -> datetime:
        """Return when a run may begin that is due at a time."""
        return self.hours.opens(time) if self.hours else time

    def __str__(self) -> str:
        return f"{self.phase} ({self.pool})" if self.phase in {Phase.QUEUED, Phase.RUNNING} else str(self.phase)


class Agenda:
    """All jobs of a scheduler, with their states and times."""

    def __init__(self, worker_limit: int) -> None:
        self.worker_limit = worker_limit
        """Slots of each pool. May be changed at any time; running jobs continue."""
        self.entries: dict[str, Entry] = {}
        """All jobs by name."""
        # Entries are not removed from the middle of a heap, which would take a search. They become void by their
        # ticket and are dropped when they reach the top.
        self._tickets = itertools.count(1)
        self._waiting: list[tuple[datetime, int, Entry]] = []
        self._queues: dict[Pool, list[tuple[bool, datetime, int, Entry]]] = {pool: [] for pool in Pool}
        self._running: dict[Pool, set[Entry]] = {pool: set() for pool in Pool}

    def running(self, pool: Pool) -> int:
        """Return how many slots of a pool are in use."""
        return len(self._running[pool])

    def slots(self, pool: Pool) -> int:
        """Return how many slots a pool has."""
        return 1 if pool in TURNS else self.worker_limit

    def queued(self, pool: Pool) -> int:
        """Return how many jobs wait for a slot of a pool."""
        return sum(ticket == entry.ticket for _, _, ticket, entry in self._queues[pool])

    def add(self, name: str, schedule: Schedule, since: datetime, hours: Hours | None = None) -> Entry:
        """Add a job that exists since `since`. It does not run before the first call of `learn`."""
        entry = Entry(name, schedule, _shift(name, schedule, hours), Past(since, None, {}), hours=hours)
        self.entries[name] = entry
        return entry

    def remove(self, name: str) -> None:
        """Remove a job. If it is running, its slot stays in use until `finish` is called."""
        self.entries.pop(name).ticket = 0

    def reschedule(self, name: str, schedule: Schedule, now: datetime, hours: Hours | None = None) -> None:
        """Change the schedule and the hours of a job."""
        entry = self.entries[name]
        entry.schedule, entry.hours, entry.shift = schedule, hours, _shift(name, schedule, hours)
        self._place(entry, now)

    def learn(self, name: str, past: Past, duration: float | None, now: datetime) -> None:
        """Record the past of a job; `duration` is that of its newest revision, in seconds."""
        entry = self.entries[name]
        if entry.phase is Phase.RUNNING:
            return  # `finish` records the past after the run, and only then is the slot free
        self._note(entry, past, duration)
        self._place(entry, now)

    def trigger(self, name: str, now: datetime, tags: Sequence[str] = ()) -> bool:
        """Queue a job regardless of its schedule, with other tags if any. Return False if it is running already.

        What was asked for before, and waits for a slot, is not forgotten.
        """
        entry = self.entries[name]
        if entry.phase is Phase.RUNNING:
            return False
        entry.urgent, entry.asked = True, sorted({*entry.asked, *tags})
        self._place(entry, now)
        return True

    def pause(self, name: str, until: datetime | None, now: datetime) -> None:
        """Start no run of a job before `until`, or go on with it; a run that goes on comes to its end."""
        entry = self.entries[name]
        entry.paused = until
        self._place(entry, now)

    def start(self, now: datetime) -> list[Entry]:
        """Assign free slots to due jobs and return the jobs to start, each with its tags in `due`."""
        while self._waiting and self._waiting[0][0] <= now:
            _, ticket, entry = heapq.heappop(self._waiting)
            if ticket == entry.ticket:
                self._queue(entry)
        return [entry for pool, queue in self._queues.items() if queue for entry in self._fill(pool, now)]

    def finish(self, entry: Entry, outcome: Outcome, past: Past, duration: float | None, now: datetime) -> None:
        """Record the outcome of a run and the past of its job, and free the slot."""
        self._running[entry.pool].discard(entry)
        if self.entries.get(entry.name) is not entry:
            return  # removed, or replaced by a new job of its name, during the run
        self._note(entry, past, duration)
        entry.urgent, entry.asked, entry.retry = False, (), None
        if outcome is Outcome.DONE and entry.pool not in BACKUPS:
            entry.failures = 0
        if outcome is Outcome.BUSY:
            entry.retry = now + BUSY_RETRY
        elif outcome is Outcome.FAILED:
            entry.failures += 1
            # what is damaged was told, and to read or start all again at once would not help
            turn = entry.pool in TURNS
            entry.retry = now + (smallest_interval(entry.schedule) / 8 if turn else backoff(entry.failures))
        elif outcome is Outcome.CANCELLED:
            entry.retry = min(next_ideal(tag.interval, entry.shift, now) for tag in entry.schedule.values())
        self._place(entry, now)

    def set_clock(self, jump: timedelta, now: datetime) -> None:
        """Place all jobs anew after the clock was set forward by `jump`, or back if that is negative."""
        for entry in self.entries.values():
            if entry.retry:
                entry.retry += jump
            self._place(entry, now)

    def next_time(self) -> datetime | None:
        """Return when to call `start` next, unless `finish` or `trigger` is called before."""
        while self._waiting and self._waiting[0][1] != self._waiting[0][2].ticket:
            heapq.heappop(self._waiting)
        return self._waiting[0][0] if self._waiting else None

    @staticmethod
    def _note(entry: Entry, past: Past, duration: float | None) -> None:
        """Record the past of a job, choose its pool and reset its failures if there is a new revision."""
        # Also one that an operator made by hand: it proves that the job works.
        if past.newest and past.newest > (entry.past.newest or EPOCH):
            entry.failures, entry.retry = 0, None
        entry.past = past
        if entry.pool in BACKUPS:
            entry.pool = Pool.SLOW if duration is None or duration >= FAST.total_seconds() else Pool.FAST
        entry.phase = Phase.WAITING

    def _place(self, entry: Entry, now: datetime) -> None:
        """Put a job that is not running into the heap of waiting jobs, or into the queue if it is urgent."""
        if entry.phase in {Phase.UNKNOWN, Phase.RUNNING}:
            return
        entry.ticket = next(self._tickets)
        entry.due = next_due(entry.schedule, entry.shift, entry.runs, now)
        if entry.urgent:
            self._queue(entry)
            return
        entry.phase = Phase.FAILED if entry.failures else Phase.WAITING
        # A failed job is tried again even if it is not due: its tags are still missed. A busy one only waits longer.
        if entry.retry and (entry.failures or entry.retry > entry.due.time):
            entry.due = entry.due._replace(time=entry.retry)
        if entry.paused and entry.paused > entry.due.time:
            entry.phase, entry.due = Phase.PAUSED, entry.due._replace(time=entry.paused)
        entry.due = entry.due._replace(time=entry.opens(entry.due.time))
        heapq.heappush(self._waiting, (entry.due.time, entry.ticket, entry))

    def _queue(self, entry: Entry) -> None:
        """Put a job into the queue of its pool."""
        entry.phase = Phase.QUEUED
        heapq.heappush(self._queues[entry.pool], (not entry.urgent, entry.late(entry.past), entry.ticket, entry))

    def _fill(self, pool: Pool, now: datetime) -> Iterator[Entry]:
        """Assign the free slots of a pool and yield the jobs to start."""
        queue, running = self._queues[pool], self._running[pool]
        while queue and len(running) < self.slots(pool):
            _, _, ticket, entry = heapq.heappop(queue)
            if ticket != entry.ticket:
                continue
            tags = entry.asked or missed(entry.schedule, entry.shift, entry.runs, now)
            due = (tags or entry.failures) and entry.opens(now) == now
            if not due and not entry.urgent:
                # due when it was queued: the clock was set back since, or its hours are over
                self._place(entry, now)
                continue
            # A job that has waited for a slot is not sent back to wait for a near run with more tags: that could
            # repeat for ever.
            entry.due = Due(now, tuple(sorted(tags)) or next_due(entry.schedule, entry.shift, entry.runs, now).tags)
            entry.phase = Phase.RUNNING
            running.add(entry)
            yield entry


def _shift(name: str, schedule: Schedule, hours: Hours | None) -> timedelta:
    shift = spread(name, schedule)
    return hours.spread(shift) if hours else shift
