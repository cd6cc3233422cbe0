"""A year of nights: backups and scrubs with hours, while the clock is set forward and back by an hour."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta

from backy.repository.config import ScheduledTag
from backy.scheduler.configuration.beside import Scrub
from backy.scheduler.configuration.hours import Hours, Zone
from backy.scheduler.jobs.agenda import Agenda, Entry, Outcome, Pool
from backy.scheduler.jobs.due import Past

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = BEGIN + 365 * DAY
BERLIN = Zone("Europe/Berlin")
NIGHT = Hours((time(22), time(6), BERLIN))
AFTERNOON = Hours((time(13), time(17), BERLIN))
FAILING = 0.02
WORKERS = 4


class Nights:
    """A scheduler of so many jobs, each of which has a scrub."""

    def __init__(self, jobs: int) -> None:
        self.chance = random.Random(jobs)
        self.agenda = Agenda(WORKERS)
        self.left: dict[str, timedelta] = {}
        """What is to be read of a repository until all was read."""
        self.done: dict[str, int] = {}
        for number in range(jobs):
            self.add(f"vm{number}", {"daily": ScheduledTag(DAY, 7)}, NIGHT)
            scrub = self.add(f"vm{number}/scrub", Scrub().schedule, AFTERNOON)
            scrub.pool, scrub.sla, scrub.copied = Pool.SCRUB, Scrub().sla, BEGIN
        for entry in self.agenda.entries.values():
            self.agenda.learn(entry.name, entry.runs, 60, BEGIN)

    def add(self, name: str, schedule: dict[str, ScheduledTag], hours: Hours) -> Entry:
        return self.agenda.add(name, schedule, BEGIN, hours)

    def run(self) -> None:
        running: list[tuple[datetime, int, datetime, Entry]] = []
        numbers, now = itertools.count(), BEGIN
        while now < END:
            for entry in self.agenda.start(now):
                hour = now.astimezone(BERLIN).hour
                assert (13 <= hour < 17) if entry.pool is Pool.SCRUB else (hour >= 22 or hour < 6)
                heapq.heappush(running, (now + self.length(entry, now), next(numbers), now, entry))
            upcoming = self.agenda.next_time() or END
            if running and running[0][0] <= upcoming:
                now, _, began, entry = heapq.heappop(running)
                self.finish(entry, began, now)
            else:
                now = upcoming

    def length(self, entry: Entry, now: datetime) -> timedelta:
        if entry.pool is not Pool.SCRUB:
            return MINUTE * self.chance.uniform(0.5, 2)
        # of all, some cannot be read within one afternoon
        wanted = self.left.setdefault(entry.name, MINUTE * self.chance.choices([5, 10, 20, 400], [50, 30, 15, 2])[0])
        assert entry.hours
        return min(wanted, entry.hours.closes(now) - now)

    def finish(self, entry: Entry, began: datetime, now: datetime) -> None:
        assert now <= entry.late(entry.past), entry
        outcome, past = Outcome.DONE, entry.runs
        if entry.pool is Pool.SCRUB:
            self.left[entry.name] -= now - began
            if self.left[entry.name]:
                outcome = Outcome.BUSY
            else:
                entry.copied = began
                del self.left[entry.name]
        elif self.chance.random() < FAILING:
            outcome = Outcome.FAILED
        else:
            past = Past(BEGIN, began, {"daily": began})
        self.done[entry.name] = self.done.get(entry.name, 0) + (outcome is Outcome.DONE)
        self.agenda.finish(entry, outcome, past if entry.pool is not Pool.SCRUB else entry.runs, 60, now)


def test_a_year_of_nights(rounds: Callable[[int, int], int]) -> None:
    """Nothing begins outside of its hours, nothing is late, and all is read within 90 days."""
    nights = Nights(rounds(25, 1000))
    nights.run()
    assert all(entry.late(entry.past) >= END for entry in nights.agenda.entries.values())
    assert all(count >= (4 if name.endswith("scrub") else 360) for name, count in nights.done.items())
