"""Which job runs when: the whole decision of the scheduler, without a clock, a process or a file.

A job waits for its time, then for a slot of its pool, runs, and waits again. Whoever drives an agenda tells it the
time, starts what `start` returns, and says by `finish` how that ended: the daemon does so with real processes, a
simulation without any. Within a pool those go first whose service level is in danger first.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum

from backy.schedule import EPOCH, Due, Past, Schedule, backoff, missed, next_due, sla, spread

BUSY_RETRY = timedelta(minutes=2)
"""When to try again a job whose repository another command holds."""

FAST = timedelta(minutes=10)
"""A job whose newest revision took less runs in the pool of the fast ones."""


class Pool(StrEnum):
    """Slots of their own for quick jobs, so that they need not wait behind slow ones."""

    FAST = "fast"
    SLOW = "slow"


class Phase(StrEnum):
    """What a job is about, in the words that users see."""

    UNKNOWN = "looking at its revisions"
    WAITING = "waiting for deadline"
    FAILED = "failed"
    """It waits as well, but for its next attempt."""
    QUEUED = "waiting for worker slot"
    RUNNING = "running"


class Outcome(Enum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    BUSY = "busy"
    """Another command held the repository: no fault of the job."""


@dataclass(eq=False)
class Entry:
    """A job on the agenda."""

    name: str
    schedule: Schedule
    shift: timedelta
    past: Past
    """What it has done, once its repository was looked at."""
    pool: Pool = Pool.SLOW
    phase: Phase = Phase.UNKNOWN
    due: Due | None = None
    """Its next run, or the one that it waits for or makes."""
    failures: int = 0
    """In a row."""
    retry: datetime | None = None
    """When it is tried again after a failure, due or not; before this it is not tried if it could not be done."""
    urgent: bool = False
    """Somebody wants it to run now."""
    ticket: int = field(default=0, repr=False)
    """Where it stands: a line of a heap that has another ticket is void."""

    def __str__(self) -> str:
        return f"{self.phase} ({self.pool})" if self.phase in {Phase.QUEUED, Phase.RUNNING} else str(self.phase)


class Agenda:
    """All jobs of a scheduler."""

    def __init__(self, worker_limit: int) -> None:
        self.worker_limit = worker_limit
        """Slots of each pool; may be changed at any time, what runs goes on."""
        self._entries: dict[str, Entry] = {}
        self._tickets = itertools.count(1)
        self._waiting: list[tuple[datetime, int, Entry]] = []
        self._queues: dict[Pool, list[tuple[bool, datetime, int, Entry]]] = {pool: [] for pool in Pool}
        self._running: dict[Pool, set[Entry]] = {pool: set() for pool in Pool}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def running(self, pool: Pool) -> int:
        """Return how many slots of a pool are taken."""
        return len(self._running[pool])

    def queued(self, pool: Pool) -> int:
        """Return how many jobs wait for a slot of a pool."""
        return sum(ticket == entry.ticket for _, _, ticket, entry in self._queues[pool])

    def add(self, name: str, schedule: Schedule, since: datetime) -> Entry:
        """Enter a job that is known `since` then; it runs only once `learn` was told of its past."""
        entry = Entry(name, schedule, spread(name, schedule), Past(since, None, {}))
        self._entries[name] = entry
        return entry

    def remove(self, name: str) -> None:
        """Take a job off the agenda; if it runs, its slot is free once `finish` was told so."""
        self._entries.pop(name).ticket = 0

    def reschedule(self, name: str, schedule: Schedule, now: datetime) -> None:
        """Give a job another schedule."""
        entry = self._entries[name]
        entry.schedule, entry.shift = schedule, spread(name, schedule)
        self._place(entry, now)

    def learn(self, name: str, past: Past, duration: float | None, now: datetime) -> None:
        """Take note of what a job has done, by whomever; `duration` is that of its newest revision in seconds."""
        entry = self._entries[name]
        if entry.phase is Phase.RUNNING:
            return  # `finish` will tell
        self._note(entry, past, duration)
        self._place(entry, now)

    def trigger(self, name: str, now: datetime) -> bool:
        """Let a job run as soon as there is a slot, whatever its schedule says; tell whether it did not run already."""
        entry = self._entries[name]
        if entry.phase is Phase.RUNNING:
            return False
        entry.urgent = True
        self._place(entry, now)
        return True

    def start(self, now: datetime) -> list[Entry]:
        """Take the slots that are free for what is due, and return what has to be started: its `due` says how."""
        while self._waiting and self._waiting[0][0] <= now:
            _, ticket, entry = heapq.heappop(self._waiting)
            if ticket == entry.ticket:
                self._queue(entry)
        return [entry for pool, queue in self._queues.items() if queue for entry in self._fill(pool, now)]

    def finish(self, entry: Entry, outcome: Outcome, past: Past, duration: float | None, now: datetime) -> None:
        """Take note of how a run ended and of what the job has done by now."""
        self._running[entry.pool].discard(entry)
        if self._entries.get(entry.name) is not entry:
            return
        self._note(entry, past, duration)
        entry.urgent = False
        entry.retry = None
        if outcome is Outcome.BUSY:
            entry.retry = now + BUSY_RETRY
        elif outcome is Outcome.FAILED:
            entry.failures += 1
            entry.retry = now + backoff(entry.failures)
        self._place(entry, now)

    def next_time(self) -> datetime | None:
        """Return when `start` is to be called next, unless something is finished or triggered before."""
        while self._waiting and self._waiting[0][1] != self._waiting[0][2].ticket:
            heapq.heappop(self._waiting)
        return self._waiting[0][0] if self._waiting else None

    @staticmethod
    def _note(entry: Entry, past: Past, duration: float | None) -> None:
        """Take note of a job's past. A new revision ends its failures, whoever made it."""
        if past.newest and past.newest > (entry.past.newest or EPOCH):
            entry.failures, entry.retry = 0, None
        entry.past = past
        entry.pool = Pool.SLOW if duration is None or duration >= FAST.total_seconds() else Pool.FAST
        entry.phase = Phase.WAITING

    def _place(self, entry: Entry, now: datetime) -> None:
        """Let a job that does not run wait for its time."""
        if entry.phase in {Phase.UNKNOWN, Phase.RUNNING}:
            return
        entry.ticket = next(self._tickets)
        entry.due = next_due(entry.schedule, entry.shift, entry.past, now)
        if entry.urgent:
            self._queue(entry)
            return
        entry.phase = Phase.FAILED if entry.failures else Phase.WAITING
        if entry.retry and (entry.failures or entry.retry > entry.due.time):
            entry.due = entry.due._replace(time=entry.retry)
        heapq.heappush(self._waiting, (entry.due.time, entry.ticket, entry))

    def _queue(self, entry: Entry) -> None:
        """Let a job wait for a slot."""
        entry.phase = Phase.QUEUED
        danger = (entry.past.newest or entry.past.since) + sla(entry.schedule)
        heapq.heappush(self._queues[entry.pool], (not entry.urgent, danger, entry.ticket, entry))

    def _fill(self, pool: Pool, now: datetime) -> Iterator[Entry]:
        """Take the free slots of a pool."""
        queue, running = self._queues[pool], self._running[pool]
        while queue and len(running) < self.worker_limit:
            _, _, ticket, entry = heapq.heappop(queue)
            if ticket != entry.ticket:
                continue
            tags = missed(entry.schedule, entry.shift, entry.past, now)
            if not tags and not (entry.urgent or entry.failures):
                self._place(entry, now)  # the clock was set back
                continue
            # what has waited for a slot does not wait again for a run that is near: it might do so for ever
            entry.due = Due(now, tuple(sorted(tags)) or next_due(entry.schedule, entry.shift, entry.past, now).tags)
            entry.phase = Phase.RUNNING
            running.add(entry)
            yield entry
