"""Scans repositories in threads, one after the other, so that the scheduler notices what other commands do to them."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from backy.repository.revision import utc_now
from backy.scheduler.jobs.due import tolerance
from backy.scheduler.jobs.ledger import Job
from backy.scheduler.jobs.repositories import Stamp, Summary, stamp, summarize
from backy.scheduler.process.children import HangingError, aside, happened

log = logging.getLogger(__name__)
ROUND = timedelta(minutes=10)
"""Time in which all repositories are scanned once. An unchanged one costs two system calls."""

BATCH = 50
"""Number of repositories that are scanned without a pause."""

PATIENCE = timedelta(seconds=1)
"""How long others wait for a repository that takes long, as on a network file system that hangs."""

HANGS = timedelta(minutes=5)
"""Time after which a scan counts as one that hangs."""


def look(directory: Path, known: Stamp | None, summarized: Callable[[], Summary]) -> Summary | Exception | None:
    """Return the summary of a repository, None if it has the stamp `known` still, or the error that prevents it."""
    try:
        return None if stamp(directory) == known else summarized()
    except Exception as error:  # noqa: BLE001  # a defect of one repository must not keep the others from being scanned
        return error


class Scanner:
    """Keeps the summaries of repositories up to date."""

    def __init__(self, learn: Callable[[Job, Summary], None], clock: Callable[[], datetime] = utc_now) -> None:
        self._learn = learn
        self._clock = clock
        self._going: dict[str, asyncio.Task[None]] = {}
        """The scans that go on, by the name of the job. There is one of each, however long it takes."""
        self._new: deque[Job] = deque()
        self._there_are_new = asyncio.Event()
        self._problems: dict[str, str] = {}

    def add(self, jobs: Iterable[Job]) -> None:
        """Scan the repositories of new jobs before all others."""
        # A job does not run before its first scan.
        self._new.extend(jobs)
        self._there_are_new.set()

    def problems(self, names: Container[str]) -> Iterator[str]:
        """Yield why repositories of jobs with these names can not be scanned."""
        return (text for name, text in self._problems.items() if name in names)

    async def run(self, jobs: Callable[[], Sequence[Job]], longest: Callable[[], timedelta]) -> None:
        """Scan all repositories again and again until cancelled.

        Args:
            jobs: Returns the current jobs.
            longest: Returns the longest pause between two batches.
        """
        left: deque[Job] = deque()
        while True:
            if not self._new:
                # A new round begins with the jobs of its time; pauses spread it over `ROUND`.
                left = left or deque(jobs())
                await happened(self._there_are_new, min(longest(), ROUND * BATCH / max(len(left), 1)))
                self._there_are_new.clear()
            queue = self._new or left
            await self.look([queue.popleft() for _ in range(min(BATCH, len(queue)))])

    async def look(self, jobs: Sequence[Job]) -> None:
        """Scan the repositories of these jobs now; leave behind one that takes long, which is scanned all the same."""
        for job in jobs:
            if job.settings.name not in self._going:
                await asyncio.wait([self._begun(job, again=False)], timeout=PATIENCE.total_seconds())

    async def look_again(self, job: Job) -> bool:
        """Scan a repository also if it seems unchanged, and wait for it; return false if it hangs."""
        # One that began before may not have seen everything, and another one may begin when it ends.
        while going := self._going.get(job.settings.name):
            if (await asyncio.wait([going], timeout=HANGS.total_seconds()))[1]:
                return False
        return not (await asyncio.wait([self._begun(job, again=True)], timeout=HANGS.total_seconds()))[1]

    def close(self) -> None:
        """Wait for no scan any more."""
        for task in self._going.values():
            task.cancel()

    def _begun(self, job: Job, *, again: bool) -> asyncio.Task[None]:
        """Begin to scan a repository."""
        # What the thread needs is taken from the job here: only the loop may touch it.
        directory, past, now = job.settings.directory, job.entry.past, self._clock()
        allowed = tolerance(job.entry.schedule)
        # Time passes and the clock is set: what is ahead of it changes, even if the repository does not.
        known = job.summary.stamp if job.summary and not again and not past.depends_on(now + allowed) else None
        summarized = partial(summarize, directory, past.since, now, allowed, job.audited)
        scan = asyncio.ensure_future(aside(look, directory, known, summarized))
        task = self._going[job.settings.name] = asyncio.get_running_loop().create_task(self._scan(job, scan))
        task.add_done_callback(lambda _: self._going.pop(job.settings.name))
        return task

    async def _scan(self, job: Job, scan: asyncio.Future[Summary | Exception | None]) -> None:
        name = job.settings.name
        if (await asyncio.wait([scan], timeout=HANGS.total_seconds()))[1]:
            self._note(name, HangingError(HANGS))
        found = await scan
        if isinstance(found, Exception):
            self._note(name, found)
            return
        self._problems.pop(name, None)
        if found is not None:
            self._learn(job, found)

    def _note(self, name: str, error: Exception) -> None:
        text = f"{name}: the repository can not be looked at: {error or type(error).__name__}"
        # Once, and not in every round as long as a disk is missing.
        if self._problems.get(name) != text:
            log.error("%s", text)
        self._problems[name] = text
