"""Looks at repositories in a thread of its own, a few at a time, for ever: what others do to them is noticed, too."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from backy.scheduler.ledger import Job
from backy.scheduler.summary import Stamp, Summary, stamp, summarize
from backy.scheduler.waiting import happened

log = logging.getLogger(__name__)
ROUND = timedelta(minutes=10)
"""Within this time every repository is looked at: two calls of the system each, and more only if it was changed."""

BATCH = 50
"""Repositories that are looked at without a pause."""


@dataclass(frozen=True)
class Look:
    """What has to be known to look at a repository."""

    directory: Path
    since: datetime
    known: Stamp | None
    """Its stamp when it was read; one that has the same now is not read again."""

    def __call__(self) -> Summary | Exception | None:
        """Return what the repository holds, None if nothing has changed, or why it can not be looked at."""
        try:
            return None if stamp(self.directory) == self.known else summarize(self.directory, self.since)
        except Exception as error:  # noqa: BLE001  # whatever is in one repository, the others are looked at
            return error


class Scanner:
    """Keeps what the scheduler knows of repositories up to date."""

    def __init__(self, directory: Callable[[Job], Path], learn: Callable[[Job, Summary], None]) -> None:
        self._directory = directory
        self._learn = learn
        self._thread = ThreadPoolExecutor(1, "scanner")
        self._new: deque[Job] = deque()
        self._there_are_new = asyncio.Event()
        self._trouble: dict[str, str] = {}

    def add(self, jobs: Iterable[Job]) -> None:
        """Look at these before all others: they are not known yet."""
        self._new.extend(jobs)
        self._there_are_new.set()

    def trouble(self, names: Container[str]) -> Iterator[str]:
        """Yield which repositories, of jobs with these names, can not be looked at, and why."""
        return (text for name, text in self._trouble.items() if name in names)

    async def run(self, jobs: Callable[[], Sequence[Job]], longest: Callable[[], timedelta]) -> None:
        """Look at one repository after the other, for ever.

        `jobs` returns those that there are at the time, `longest` the longest pause on the way.
        """
        left: deque[Job] = deque()
        while True:
            if not self._new:
                left = left or deque(jobs())
                await happened(self._there_are_new, min(longest(), ROUND * BATCH / max(len(left), 1)))
                self._there_are_new.clear()
            queue = self._new or left
            await self.look([queue.popleft() for _ in range(min(BATCH, len(queue)))])

    async def look(self, jobs: Sequence[Job], *, again: bool = False) -> None:
        """Look at the repositories of these jobs now; at those that seem unchanged, too, if `again`."""
        looks = [
            Look(self._directory(job), job.entry.past.since, job.summary.stamp if job.summary and not again else None)
            for job in jobs
        ]
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(self._thread, lambda: [look() for look in looks])
        for job, found in zip(jobs, results, strict=True):
            if isinstance(found, Exception):
                self._note(job.settings.name, found)
                continue
            self._trouble.pop(job.settings.name, None)
            if found is not None:
                self._learn(job, found)

    def close(self) -> None:
        """End the thread; what it has not begun yet is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _note(self, name: str, error: Exception) -> None:
        text = f"{name}: the repository can not be looked at: {error or type(error).__name__}"
        if self._trouble.get(name) != text:
            log.error("%s", text)
        self._trouble[name] = text
