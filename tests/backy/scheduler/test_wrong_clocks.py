"""Clocks that jump, servers that are off and machines that are put back: nothing is lost, and no run missed for long.

The scheduler, the backups and the expiry are those of production, on real records. Only time is made up: the event loop
does not wait but lets it pass, so that a year takes a minute. What the clock of the server says is one thing, what time
it is another; what has to be kept is decided by the latter.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.config import Duration
from backy.groups.forget import expire
from backy.plugins.events import Events
from backy.repository.config import ScheduledTag
from backy.retention.rules import Schedule, read_mark
from backy.scheduler.configuration.configuration import load
from backy.scheduler.daemon import Daemon
from backy.scheduler.jobs.agenda import Outcome, Result
from backy.scheduler.jobs.due import ClockWatch
from backy.scheduler.monitoring.reporter import Notifier
from backy.testing.memory import MemoryRepository
from tests.passing import BEGIN, MINUTE, Loop, Machine, NoThread

MEMORY = Path("/dev/shm")
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
QUICK: Schedule = {"daily": ScheduledTag(Duration(days=1), 3), "third": ScheduledTag(Duration(days=3), 2)}
FULL: Schedule = {"daily": ScheduledTag(Duration(days=1), 10), "weekly": ScheduledTag(Duration(days=7), 4)}


class Made:
    """A revision that was made."""

    def __init__(self, machine: Machine, tags: tuple[str, ...]) -> None:
        self.time, self.worked, self.tags = machine.now, machine.worked - machine.undone, tags


class Server:
    """A server with one job, and what is known of the revisions that it has made."""

    def __init__(self, folder: Path, schedule: Schedule) -> None:
        self.machine = Machine()
        self.schedule = schedule
        self.base = folder / "srv"
        self.base.mkdir()
        self.directory = self.base / "vm"
        self.made: dict[str, Made] = {}
        self.lost: set[str] = set()
        """Ids of revisions that have gone although they were still wanted."""
        self.most_gone = 0
        """The greatest number of revisions that went at once."""
        keys = "".join(
            f"{name}: {{interval: {tag.interval.days}d, keep: {tag.keep}}}, " for name, tag in schedule.items()
        )
        self.configuration = folder / "backy.conf"
        self.configuration.write_text(
            f"global: {{base-dir: {self.base}, status-interval: 4m}}\nschedules: {{default: {{{keys}}}}}\n"
            "jobs: {vm: {source: {type: file, filename: /dev/null}, schedule: default}}\n"
        )
        made = MemoryRepository.make(self.directory)
        made.config.schedule, made.config.created = dict(schedule), BEGIN
        made.write_config(made.config)

    def open(self) -> MemoryRepository:
        repository = MemoryRepository.open(self.directory)
        repository.memory.content = b"content"
        return repository

    async def run(self, _job: object, tags: tuple[str, ...], _options: object) -> Result:
        """Do what the commands of a run do, in the place of a `Runner`."""
        machine, repository = self.machine, self.open()
        made = Backup(repository, tags, Events(), clock=machine.clock, boottime=lambda: machine.up).run()
        self.made[made.id] = Made(machine, tags)
        await asyncio.sleep(60)
        before = len(self.history())
        expire(self.open(), machine.clock, Events())
        self.most_gone = max(self.most_gone, before - len(self.history()))
        self.see_what_is_kept()
        return Result(Outcome.DONE)

    def history(self) -> dict[str, tuple[str, ...]]:
        """Return the tags of all revisions by their ids."""
        return {one.id: one.tags for one in self.open().records.history()}

    def see_what_is_kept(self) -> None:
        """See that the newest of each tag are there, and those that are not older than their window."""
        there = self.history()
        for tag, wanted in self.schedule.items():
            made = [(one, what.time) for one, what in self.made.items() if tag in what.tags]
            oldest = self.machine.now - wanted.interval * wanted.keep
            kept = {one for one, _ in made[-wanted.keep :]} | {one for one, time in made if time > oldest}
            self.lost |= {one for one in kept if tag not in there.get(one, ())}

    # the scheduler ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        daemon = Daemon(load(self.configuration), None, ["backy"], Notifier(None, SECOND), self.machine.clock)
        daemon._watch = ClockWatch(self.machine.clock, lambda: self.machine.up)
        daemon.runner, daemon._announcer = self, self
        daemon._apply(daemon.configuration, {})
        parts = (
            daemon._start_what_is_due(),
            daemon._scanner.run(lambda: list(daemon.ledger.jobs.values()), daemon._interval),
        )
        self.daemon, self.tasks = daemon, [asyncio.create_task(part) for part in parts]

    def tell(self, *_: object, **_more: object) -> None:
        """Tell no plugin, in the place of an `Announcer`."""

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        found = await asyncio.gather(*self.tasks, *self.daemon._tasks, return_exceptions=True)
        assert {type(one) for one in found} <= {asyncio.CancelledError, type(None)}, found

    async def restart(self, off: timedelta = MINUTE, clock: datetime | None = None) -> None:
        await self.stop()
        self.machine.restart(off, clock)
        await self.start()

    async def days(self, number: float) -> None:
        await asyncio.sleep(number * 86400)

    def longest_gap(self) -> float:
        """Return for how many of its intervals a tag was not made while the server was on, at most."""
        gaps = []
        for tag, wanted in self.schedule.items():
            times = [made.worked for made in self.made.values() if tag in made.tags]
            times.append(self.machine.worked - self.machine.undone)
            gaps += [(later - earlier) / wanted.interval for earlier, later in pairwise(times)]
        return max(gaps)


Scenario = Callable[[Server], Awaitable[None]]


# what happens to servers ----------------------------------------------------------------------------------------------


def jumps(*lengths: timedelta) -> Scenario:
    """Let the clock jump, with a day between two jumps, and leave it as it is."""

    async def scenario(server: Server) -> None:
        for length in lengths:
            server.machine.wrong += length
            await server.days(1.1)

    return scenario


def for_a_while(length: timedelta, days: float = 1.5) -> Scenario:
    """Set the clock, and set it right after some days."""

    async def scenario(server: Server) -> None:
        server.machine.wrong += length
        await server.days(days)
        server.machine.wrong -= length

    return scenario


async def steps_of_ntp(server: Server) -> None:
    for number in range(40):
        server.machine.wrong += (-1) ** number * number * SECOND / 4
        await server.days(0.1)
    server.machine.wrong = timedelta()


async def without_battery(server: Server) -> None:
    """The clock begins in 1970 each time, and is set two minutes later, or only after a day."""
    for wait in (2 * MINUTE, 1.5 * DAY, 2 * MINUTE):
        await server.restart(HOUR, datetime(1970, 1, 1, tzinfo=UTC))
        await server.days(wait / DAY)
        server.machine.wrong = timedelta()
        await server.days(1)


def off(weeks: int) -> Scenario:
    async def scenario(server: Server) -> None:
        await server.restart(7 * weeks * DAY)

    return scenario


async def new_hardware(server: Server) -> None:
    """Everything is copied; the new machine runs for weeks already, and its clock is a bit behind."""
    await server.restart(3 * HOUR)
    server.machine.up = 40 * 86400.0
    server.machine.wrong = -90 * SECOND


async def paused(server: Server) -> None:
    """Three weeks, and the clock is set when the machine goes on."""
    server.machine.pause(21 * DAY)
    await server.days(1 / 1440)
    server.machine.wrong = timedelta()


async def put_back(server: Server) -> None:
    """A machine is restored from a snapshot with its memory: its clock is behind until it is set."""
    copy, machine = server.base.with_name("snapshot"), server.machine
    shutil.copytree(server.base, copy, symlinks=True)
    taken, worked, up, made = machine.now, machine.worked, machine.up, dict(server.made)
    await server.days(3.3)
    await server.stop()
    shutil.rmtree(server.base)
    copy.rename(server.base)
    machine.set_clock(taken)
    machine.undone += machine.worked - worked
    machine.up, server.made = up, made
    await server.start()
    await server.days(2 / 1440)
    machine.wrong = timedelta()


def reboots(number: int) -> Scenario:
    async def scenario(server: Server) -> None:
        for _ in range(number):
            await server.restart()
            await server.days(0.02)

    return scenario


def everything(days: float) -> Scenario:
    """Let everything happen in turn, with some days between two things; the clock is always set right."""

    async def scenario(server: Server) -> None:
        for one in (steps_of_ntp, off(3), for_a_while(DAY), new_hardware, paused, put_back, without_battery, off(6)):
            await one(server)
            await server.days(days)

    return scenario


HONEST: dict[str, Scenario] = {
    "nothing": jumps(),
    "NTP steps": steps_of_ntp,
    "3 weeks off": off(3),
    "6 weeks off": off(6),
    "new hardware": new_hardware,
    "paused": paused,
    "restored from a snapshot": put_back,
}
WRONG: dict[str, Scenario] = {
    "forward": jumps(DAY),
    "back": jumps(-DAY),
    "100 s": jumps(*[100 * SECOND] * 3, *[-100 * SECOND] * 3),
    "1.9 days fourteen times": jumps(*[1.9 * DAY] * 14),
    "8 days eight times": jumps(*[8 * DAY] * 8),
    "5 years": jumps(5 * 365 * DAY),
    "5 years for a while": for_a_while(5 * 365 * DAY),
    "1.9 days for a while": for_a_while(1.9 * DAY),
    "3 days for three days": for_a_while(3 * DAY, 3.3),
    "5 years back for a while": for_a_while(-5 * 365 * DAY),
    "1970": without_battery,
}


FEW = ("3 days for three days", "everything")


@pytest.fixture
def server(tmp_path: Path, rounds: Callable, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Make servers, one after the other."""
    # a jump is noticed within a minute; nobody needs to look that often if nothing happens
    monkeypatch.setattr("backy.scheduler.daemon.LONGEST_SLEEP", rounds(10, 5) * MINUTE)
    monkeypatch.setattr("backy.scheduler.process.children.Thread", NoThread)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as folder:

        def make(schedule: Schedule | None = None) -> Server:
            made = Server(Path(tempfile.mkdtemp(dir=folder)), schedule or rounds(QUICK, FULL))
            for module in ("backup.backup", "system.clocks"):
                monkeypatch.setattr(f"backy.{module}.boot_id", lambda: f"boot {made.machine.boot}")
            monkeypatch.setattr("backy.system.clocks.boottime", lambda: made.machine.up)
            return made

        yield make


def live(server: Server, scenario: Scenario, before: float, after: float) -> None:
    """Let a server run for some days before and after something happens to it."""

    async def life() -> None:
        await server.start()
        await server.days(before)
        await scenario(server)
        await server.days(after)
        await server.stop()

    with asyncio.Runner(loop_factory=lambda: Loop(server.machine)) as runner:
        runner.run(life())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try all that may happen to a clock in a soak, and a few things otherwise."""
    if "name" in metafunc.fixturenames:
        all_of_them = (*HONEST, *WRONG, "1,000 reboots", "everything")
        metafunc.parametrize("name", all_of_them if metafunc.config.getoption("--soak") else FEW)


def test_nothing_is_lost_and_no_run_is_missed_for_longer_than_an_interval(
    server: Callable[..., Server], rounds: Callable, name: str
) -> None:
    more = {"1,000 reboots": reboots(1000), "everything": everything(rounds(1.2, 9))}
    made = server()
    live(made, {**HONEST, **WRONG, **more}[name], rounds(5, 60), rounds(7, 240))

    assert made.lost == set()
    assert made.longest_gap() <= 2
    assert made.most_gone <= 2 * len(made.schedule)
    mark = read_mark(made.directory)
    assert mark is not None
    if name not in WRONG:
        assert mark.waiting == 0
        assert len(made.history()) <= sum(tag.keep for tag in made.schedule.values()) + 2


def test_a_clock_that_jumps_with_each_restart_costs_two_of_a_tag_with_each_backup_at_most(
    server: Callable[..., Server], rounds: Callable
) -> None:
    """Nothing tells it from a server that was off, but it takes as many restarts as there are revisions."""
    schedule = {"daily": ScheduledTag(Duration(days=1), rounds(7, 30))}
    made = server(schedule)

    async def restarts(server: Server) -> None:
        for _ in range(rounds(3, 40)):
            before, count = server.history(), len(server.made)
            await server.restart(MINUTE, server.machine.clock() + 400 * DAY)
            await server.days(0.1)
            after = server.history()
            gone = Counter(tag for one, tags in before.items() for tag in tags if tag not in after.get(one, ()))
            # what was missed is made at once, and the time of day at which the job is due may follow
            new = len(server.made) - count
            assert new in {1, 2}
            assert max(gone.values(), default=0) <= 2 * new

    live(made, restarts, rounds(9, 60), 0)
    assert len(made.history()) >= schedule["daily"].keep
