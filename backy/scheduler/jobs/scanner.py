"""Scans repositories in a thread, a few at a time, so that the scheduler notices what other commands do to them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from backy.repository.revision import utc_now
from backy.retention.schedule import tolerance
from backy.scheduler.jobs.ledger import Job
from backy.scheduler.jobs.summary import Stamp, Summary, stamp, summarize
from backy.scheduler.process.waiting import happened

log = logging.getLogger(__name__)
ROUND = timedelta(minutes=10)
"""Time in which all repositories are scanned once. An unchanged one costs two system calls."""

BATCH = 50
"""Number of repositories that are scanned without a pause."""


@dataclass(frozen=True)
class Look:
    """The scan of one repository. It has copies of its inputs, because it runs in another thread."""

    directory: Path
    since: datetime
    known: Stamp | None
    """Stamp of the last scan; a repository that still has it is not read again."""
    limit: datetime
    """Revisions that began later are ahead of the clock."""

    def __call__(self) -> Summary | Exception | None:
        """Return the summary of the repository, None if it is unchanged, or the error that prevents the scan."""
        try:
            return None if stamp(self.directory) == self.known else summarize(self.directory, self.since, self.limit)
        except Exception as error:  # noqa: BLE001  # a defect of one repository must not keep the others from being scanned
            return error


class Scanner:
    """Keeps the summaries of repositories up to date."""

    def __init__(
        self,
        directory: Callable[[Job], Path],
        learn: Callable[[Job, Summary], None],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._directory = directory
        self._learn = learn
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "scanner")
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

    async def look(self, jobs: Sequence[Job], *, again: bool = False) -> None:
        """Scan the repositories of these jobs now; read those that seem unchanged, too, if `again` is set."""
        # What the thread needs is taken from the jobs here: only the loop may touch them.
        now = self._clock()
        looks = [self._look(job, now, again=again) for job in jobs]
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(self._thread, lambda: [look() for look in looks])
        for job, found in zip(jobs, results, strict=True):
            if isinstance(found, Exception):
                self._note(job.settings.name, found)
                continue
            self._problems.pop(job.settings.name, None)
            if found is not None:
                self._learn(job, found)

    def close(self) -> None:
        """End the thread and drop scans that have not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _look(self, job: Job, now: datetime, *, again: bool) -> Look:
        past, limit = job.entry.past, now + tolerance(job.entry.schedule)
        # Time passes and the clock is set: what is ahead of it changes, even if the repository does not.
        known = job.summary.stamp if job.summary and not again and not past.depends_on(limit) else None
        return Look(self._directory(job), past.since, known, limit)

    def _note(self, name: str, error: Exception) -> None:
        text = f"{name}: the repository can not be looked at: {error or type(error).__name__}"
        # Once, and not in every round as long as a disk is missing.
        if self._problems.get(name) != text:
            log.error("%s", text)
        self._problems[name] = text
