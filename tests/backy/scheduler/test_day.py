"""A day of many jobs, with operators at work beside the scheduler: no alarm is false, and no failure is missed.

The scheduler, the backups, the expiry and what operators do are those of production, on real records and locks. Only
time is made up. Every five minutes, `check` must name the jobs whose last backup failed, and nobody else.
"""

from __future__ import annotations

import asyncio
import fcntl
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from backy.api import Snapshot, SourceError
from backy.backup.backup import Backup
from backy.config import Duration
from backy.conversion.convert import Conversion
from backy.errors import BackyError, RepositoryBusyError
from backy.groups.forget import expire, forget, undelete
from backy.plugins.events import Events
from backy.repository.config import ScheduledTag
from backy.retention.purge import purge
from backy.retention.tags import add_tags
from backy.scheduler.configuration.configuration import JobEntry, load
from backy.scheduler.daemon import Daemon
from backy.scheduler.jobs.agenda import Outcome, Result
from backy.scheduler.jobs.due import ClockWatch
from backy.scheduler.jobs.ledger import ROUND
from backy.scheduler.monitoring.check import Recorded, State, Verdict, judge
from backy.scheduler.monitoring.reporter import Notifier
from backy.scrubbing.scrub import Scrub, verify_all
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, exclusive, shared
from backy.testing.memory import MemoryImage, MemoryRepository
from tests.passing import BEGIN, MINUTE, Loop, Machine, NoThread
from tests.trash import content

MEMORY = Path("/dev/shm")
SCHEDULE = {"often": ScheduledTag(Duration(hours=4), 2), "half": ScheduledTag(Duration(hours=12), 2)}
FAILING = 0.15
"""Share of the jobs whose source is away for some hours."""
CHECKS = timedelta(minutes=5)
LATE = timedelta(hours=6)
"""1.5 times the smallest interval."""
NAMED = re.compile(r"(vm[0-9]+)(?: \(last time|: fails since)")


class Gone(MemoryImage):
    """An image that can not be read."""

    def pread(self, offset: int, length: int) -> bytes:
        raise SourceError(f"the source went away at {offset}, where there are {length} bytes")


class Beside(MemoryImage):
    """An image during whose transfer an operator does something, once."""

    def __init__(self, image: MemoryImage, act: Callable[[], object]) -> None:
        super().__init__(image.content)
        self._act: Callable[[], object] | None = act

    def pread(self, offset: int, length: int) -> bytes:
        act, self._act = self._act, None
        if act:
            act()
        return super().pread(offset, length)


def remove_oldest(repository: MemoryRepository) -> None:
    forget(repository, [repository.records.history()[0].id], "a test", force=True, events=Events())


def put_back(repository: MemoryRepository) -> None:
    for revision in content(repository)[:1]:
        undelete(repository, revision.id, events=Events())


def convert(repository: MemoryRepository) -> None:
    name = "other" if repository.config.storage.folder == "chunks" else "chunks"
    Conversion(repository, "chunked", {"name": name}).run()


def scrub(repository: MemoryRepository, clock: Callable, *, deep: bool) -> None:
    found = Scrub(repository, deep, clock, events=Events()).run()
    assert (found.damaged, found.distrusted, found.problems) == ([], [], [])


class Site:
    """A server with many jobs, its scheduler, and the truth about them."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.machine = Machine()
        self.chance = random.Random(jobs)
        self.base = folder
        self.names = [f"vm{number:03}" for number in range(jobs)]
        self.away: set[str] = set()
        """Jobs whose source can not be read now."""
        self.failed: set[str] = set()
        """Jobs whose last backup failed."""
        self.done: Counter[str] = Counter()
        """How often what happened."""
        self.wrong: list[str] = []
        """What `check` should not have said, or should have."""
        for name in self.names:
            made = MemoryRepository.make(folder / name)
            made.config.schedule, made.config.created = dict(SCHEDULE), BEGIN
            made.write_config(made.config)
        self.configuration = folder / "backy.conf"
        rows = "".join(
            f"  {name}: {{source: {{type: file, filename: /dev/null}}, schedule: s}}\n" for name in self.names
        )
        self.configuration.write_text(
            f"global: {{base-dir: {folder}, status-interval: 4m, worker-limit: 4}}\n"
            "schedules: {s: {often: {interval: 4h, keep: 2}, half: {interval: 12h, keep: 2}}}\n"
            f"jobs:\n{rows}"
        )

    def open(self, name: str) -> MemoryRepository:
        repository = MemoryRepository.open(self.base / name)
        repository.memory.content = self.chance.randbytes(5000)
        return repository

    async def run(self, job: JobEntry, tags: tuple[str, ...], _options: object) -> Result:
        """Do what the commands of a run do, in the place of a `Runner`."""
        await asyncio.sleep(self.chance.uniform(5, 900))
        repository = self.open(job.name)
        repository.memory.wrap = partial(self._snapshot, job.name)
        try:
            Backup(repository, tags, Events(), clock=self.machine.clock, boottime=lambda: self.machine.up).run()
        except RepositoryBusyError as error:
            self.done["busy"] += 1
            return Result(Outcome.BUSY, str(error))
        except SourceError as error:
            self.failed.add(job.name)
            self.done["failure"] += 1
            return Result(Outcome.FAILED, str(error))
        self.failed.discard(job.name)
        self.done["backup"] += 1
        put_off = False
        for command in (expire, purge):
            try:
                command(self.open(job.name), clock=self.machine.clock, events=Events())
            except RepositoryBusyError:
                put_off = True
                self.done["put off"] += 1
        return Result(Outcome.DONE, put_off=put_off)

    def _snapshot(self, name: str, image: MemoryImage) -> Snapshot:
        if name in self.away:
            return Gone(image.content)
        acts = (remove_oldest, lambda one: add_tags(one, "last", ["manual:x"]), lambda _: None)
        return Beside(image, lambda: self.try_to(self.chance.choice(acts), name))

    def try_to(self, act: Callable[[MemoryRepository], object], name: str) -> None:
        """Let an operator do something, who may be told that it can not be done now, or for want of revisions."""
        # in this process, waiting for who holds a lock would be for ever
        with suppress(BackyError, IndexError, BlockingIOError), pytest.MonkeyPatch.context() as patch:
            patch.setattr(fcntl, "flock", lambda file, how, lock=fcntl.flock: lock(file, how | fcntl.LOCK_NB))
            act(self.open(name))
            self.done["act"] += 1

    def newest(self, name: str) -> datetime:
        """Return when the newest revision of a job was made, or when the job began."""
        return max([BEGIN, *(one.timestamp for one in self.open(name).records.history())])

    # what goes on beside the scheduler --------------------------------------------------------------------------------

    async def operate(self) -> None:
        """Do something to a job every few minutes, which may take some hours."""
        acts: list[Callable[[MemoryRepository], object]] = [
            convert,
            put_back,
            remove_oldest,
            partial(scrub, clock=self.machine.clock, deep=False),
            partial(scrub, clock=self.machine.clock, deep=True),
            lambda one: add_tags(one, "last", ["manual:y"]),
            lambda one: purge(one, Events(), everything=True),
            lambda one: verify_all(one, "last", lambda _: None),
        ]
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self.chance.uniform(60, 1200))
                name = self.chance.choice(self.names)
                if self.chance.random() < 0.3:  # a share
                    group.create_task(self.hold(name))
                else:
                    self.try_to(self.chance.choice(acts), name)

    async def hold(self, name: str) -> None:
        """Hold a lock for a while, as a mount does, or a long conversion."""
        mounted = self.chance.random() < 0.5  # a share
        lock = shared(self.base / name, PURGE_LOCK) if mounted else exclusive(self.base / name, BACKUP_LOCK)
        with suppress(RepositoryBusyError), lock:
            self.done["hold"] += 1
            await asyncio.sleep(self.chance.uniform(60, 5400))

    async def break_sources(self) -> None:
        """Take the source of some jobs away for some hours."""
        for name in self.chance.sample(self.names, max(2, int(FAILING * len(self.names)))):
            await asyncio.sleep(self.chance.uniform(0, 7200))
            self.away.add(name)
            asyncio.get_running_loop().call_later(self.chance.uniform(3600, 6 * 3600), self.away.discard, name)

    async def watch(self, daemon: Daemon) -> None:
        """Check every five minutes."""
        # what an operator has done to a repository is seen within a round of looks at all of them
        different_for: Counter[str] = Counter()
        while True:
            await asyncio.sleep(CHECKS.total_seconds())
            verdict = check(daemon, self.machine)
            late = {name for name in self.names if self.machine.now - self.newest(name) > LATE}
            named = {found[1] for line in verdict.details if (found := NAMED.match(line))}
            different = named ^ (self.failed | late)
            different_for = Counter({name: different_for[name] + 1 for name in different})
            unseen = {name for name, times in different_for.items() if times * CHECKS > ROUND + CHECKS}
            if unseen or self.failed - named:
                self.wrong.append(f"{self.machine.now}: {self.failed} failed, {late} are late: {verdict}")
            elif not different:
                expected = State.CRITICAL if late else State.WARNING if self.failed else State.OK
                if verdict.state is not expected:
                    self.wrong.append(f"{self.machine.now}: this is {expected.name}: {verdict}")
            self.done["check"] += 1

    async def live(self, hours: float) -> None:
        daemon = Daemon(
            load(self.configuration), None, ["backy"], Notifier(None, timedelta(seconds=1)), self.machine.clock
        )
        daemon._watch = ClockWatch(self.machine.clock, lambda: self.machine.up)
        daemon.runner, daemon._announcer = self, self
        daemon._apply(daemon.configuration, {})
        parts = (
            daemon._start_what_is_due(),
            daemon._scanner.run(lambda: list(daemon.ledger.jobs.values()), daemon._interval),
            self.operate(),
            self.break_sources(),
            self.watch(daemon),
        )
        tasks = [asyncio.create_task(part) for part in parts]
        await asyncio.sleep(hours * 3600)
        for task in tasks:
            task.cancel()
        found = await asyncio.gather(*tasks, *daemon._tasks, return_exceptions=True)
        assert {type(one) for one in found} <= {asyncio.CancelledError, type(None)}, found

    def tell(self, *_: object, **_more: object) -> None:
        """Tell no plugin, in the place of an `Announcer`."""

    def problems(self, _jobs: object) -> tuple[str, ...]:
        """Have no problems, likewise."""
        return ()


def check(daemon: Daemon, machine: Machine) -> Verdict:
    """Return what `check` says of a scheduler now."""
    now = machine.clock()
    status = daemon.status()
    return judge(Recorded(daemon.configuration.settings.status_path, status.at(now), now, now, None))


@pytest.fixture
def site(tmp_path: Path, rounds: Callable, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("backy.scheduler.process.children.Thread", NoThread)
    monkeypatch.setattr("backy.scheduler.daemon.LONGEST_SLEEP", 5 * MINUTE)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as folder:
        made = Site(Path(folder), rounds(10, 200))
        for module in ("backup.backup", "system.clocks"):
            monkeypatch.setattr(f"backy.{module}.boot_id", lambda: "boot")
        monkeypatch.setattr("backy.system.clocks.boottime", lambda: made.machine.up)
        yield made


def test_no_alarm_is_false_and_no_failure_is_missed(site: Site) -> None:
    with asyncio.Runner(loop_factory=lambda: Loop(site.machine)) as runner:
        runner.run(site.live(24))
    assert site.wrong == []
    assert site.done["check"] >= 280
    assert site.done["backup"] >= 3 * len(site.names)
    assert min(site.done[what] for what in ("failure", "act", "hold")) > 0, site.done
    assert site.done["busy"] + site.done["put off"] > 0, site.done
