"""A year of a server's life in a minute: the agenda, the schedules and the retention with a simulated clock.

Backups take as long as such backups take, one in fifty fails, and twice the scheduler is down for three days. What the
daemon does with processes and files, `Server` does with numbers; what decides is the code that the daemon has.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from backy.repository.config import ScheduledTag
from backy.repository.revision import Revision
from backy.retention.rules import Schedule, expiries
from backy.scheduler.jobs.agenda import Agenda, Entry, Outcome, Pool
from backy.scheduler.jobs.due import Past, late_from
from tests.revisions import make_revision

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
OUTAGE = 3 * DAY
FAILING = 0.02
WORKERS = 14
SLOW_SHARE = 0.1
SLOW = (900, 2700)
FAST = (10, 120)
"""Seconds that backups of slow and of fast jobs take on average; some take 0.7 of that, others 1.3 times as long."""
SCHEDULES: list[Schedule] = [
    {"daily": ScheduledTag(DAY, 10), "weekly": ScheduledTag(7 * DAY, 4), "monthly": ScheduledTag(30 * DAY, 4)},
    {"daily": ScheduledTag(DAY, 8), "weekly": ScheduledTag(7 * DAY, 3), "monthly": ScheduledTag(30 * DAY, 2)},
    {"daily": ScheduledTag(DAY, 30), "monthly": ScheduledTag(30 * DAY, 12)},
]


class Success(NamedTuple):
    """A backup that ended well."""

    started: datetime
    ended: datetime
    tags: tuple[str, ...]


class Disk:
    """A job: how long its backups take, and those that it has made."""

    def __init__(self, schedule: Schedule, chance: random.Random) -> None:
        self.schedule = schedule
        self.usual = chance.uniform(*(SLOW if chance.random() < SLOW_SHARE else FAST))
        self.past = Past(BEGIN, None, {})
        self.duration: float | None = None
        self.made: list[Success] = []

    def succeed(self, started: datetime, ended: datetime, tags: tuple[str, ...]) -> None:
        self.past = Past(BEGIN, started, {**self.past.tags, **dict.fromkeys(tags, started)})
        self.duration = (ended - started).total_seconds()
        self.made.append(Success(started, ended, tags))


class Server:
    """All jobs of a backup server, and what became of them."""

    def __init__(self, jobs: int, seed: int) -> None:
        self.chance = random.Random(seed)
        schedules = itertools.cycle(SCHEDULES)
        self.disks = {f"vm{number:05}-root": Disk(next(schedules), self.chance) for number in range(jobs)}
        self.starts: Counter[int] = Counter()
        """How many backups began in each hour since `BEGIN`."""
        self.late: list[datetime] = []
        """When jobs that were overdue had a new revision at last."""

    def run(self, begin: datetime, end: datetime) -> None:
        """Let a scheduler run from its start to its end, at which the backups that run are lost."""
        agenda = Agenda(WORKERS)
        for name, disk in self.disks.items():
            agenda.add(name, disk.schedule, BEGIN)
            agenda.learn(name, disk.past, disk.duration, begin)
        running: list[tuple[datetime, int, datetime, Entry]] = []
        numbers = itertools.count()
        now = begin
        while now < end:
            for entry in agenda.start(now):
                length = timedelta(seconds=self.disks[entry.name].usual * self.chance.uniform(0.7, 1.3))
                heapq.heappush(running, (now + length, next(numbers), now, entry))
                self.starts[(now - BEGIN) // HOUR] += 1
            upcoming = agenda.next_time() or end
            if running and running[0][0] <= upcoming:
                assert not idle(agenda), "a slot is free while jobs wait"
                now, _, started, entry = heapq.heappop(running)
                self.finish(agenda, entry, started, now)
            else:
                now = upcoming

    def finish(self, agenda: Agenda, entry: Entry, started: datetime, now: datetime) -> None:
        """Let a backup end, well or not."""
        disk = self.disks[entry.name]
        outcome = Outcome.FAILED
        if self.chance.random() >= FAILING:
            assert entry.due is not None
            outcome = Outcome.DONE
            if now > late_from(disk.schedule, disk.past):
                self.late.append(now)
            disk.succeed(started, now, entry.due.tags)
        agenda.finish(entry, outcome, disk.past, disk.duration, now)

    def all_in_time(self, now: datetime) -> bool:
        return not any(now > late_from(disk.schedule, disk.past) for disk in self.disks.values())

    def catching_up(self) -> timedelta:
        """Return how long it takes to back up all jobs once in the slots that there are."""
        work: Counter[bool] = Counter()
        for disk in self.disks.values():
            work[disk.usual >= SLOW[0]] += disk.usual
        return timedelta(seconds=max(work.values()) / WORKERS)

    def load(self, periods: list[tuple[datetime, datetime]]) -> list[int]:
        """Return how many backups began in each whole hour of these times."""
        return [
            self.starts[hour]
            for begin, end in periods
            for hour in range(-((BEGIN - begin) // HOUR), (end - BEGIN) // HOUR)
        ]


def idle(agenda: Agenda) -> bool:
    return any(agenda.running(pool) < WORKERS and agenda.queued(pool) for pool in (Pool.FAST, Pool.SLOW))


def see_what_is_kept(disk: Disk) -> None:
    """Let a disk's revisions expire after each backup, and see that there is all that there shall be, and no more.

    That is the newest `keep` of each tag and all of its last `keep` intervals.
    """
    kept: dict[str, Revision] = {}
    times: dict[str, list[datetime]] = {tag: [] for tag in disk.schedule}
    for started, ended, tags in disk.made:
        name = str(started)
        kept[name] = make_revision(name, started, tags)
        for tag in tags:
            times[tag].append(started)
        for revision, remaining in expiries(disk.schedule, list(kept.values()), ended):
            if remaining:
                kept[revision.id] = revision.changed(tags=remaining)
            else:
                del kept[revision.id]
        found: dict[str, list[datetime]] = {tag: [] for tag in disk.schedule}
        for revision in kept.values():
            assert revision.tags
            for tag in revision.tags:
                found[tag].append(revision.timestamp)
        for tag, scheduled in disk.schedule.items():
            interval, keep = scheduled.interval, scheduled.keep
            made = times[tag]
            first = min(bisect_left(made, ended - keep * interval), len(made) - keep)
            assert found[tag] == made[max(first, 0) :]


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """There are millions of small objects and no cycles: to look for those takes a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def year(rounds: Callable[[int, int], int]) -> tuple[Server, list[tuple[datetime, datetime]]]:
    """Return a server, and when its scheduler ran."""
    days = rounds(25, 365)
    first, second, end = (BEGIN + days * DAY * part for part in (0.3, 0.7, 1))
    periods = [(BEGIN, first), (first + OUTAGE, second), (second + OUTAGE, end)]
    server = Server(jobs=5000, seed=days)
    with without_garbage_collection():
        for begin, end in periods:
            server.run(begin, end)
            assert server.all_in_time(end)
    return server, periods


def test_no_job_is_late_but_after_an_outage_and_then_no_longer_than_it_takes_to_catch_up(year) -> None:
    server, (_, *after_outages) = year
    enough = server.catching_up() * 1.1  # some backups fail and are made again
    late = [time for begin, _ in after_outages for time in server.late if begin <= time <= begin + enough]

    assert late == server.late
    assert len(late) == len(after_outages) * len(server.disks)


def test_load_is_even(year) -> None:
    server, periods = year
    # on its first day nobody knows of a job whether it is a fast one; after an outage there is a day of catching up
    hours = server.load([(begin + DAY + HOUR, end) for begin, end in periods])

    assert max(hours) <= 1.3 * sum(hours) / len(hours)


def test_what_is_kept_is_exactly_what_the_schedule_says(year) -> None:
    server, _ = year
    with without_garbage_collection():
        for disk in server.disks.values():
            see_what_is_kept(disk)


def test_each_tag_is_made_once_an_interval_and_made_up_for_once_an_outage(year) -> None:
    server, periods = year
    length = periods[-1][1] - BEGIN
    for disk in server.disks.values():
        for tag, scheduled in disk.schedule.items():
            interval = scheduled.interval
            made = sum(tag in success.tags for success in disk.made)
            lost = len(periods[1:]) * (OUTAGE // interval + 1)
            assert length // interval - lost <= made <= length // interval + len(periods)
