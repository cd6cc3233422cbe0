"""Looking at everything that is stored, without the source: is it there (light), is it sound (deep)?

A deep scrub that ends early, for its time is over or it was interrupted, notes how far it came; the next one begins
there, so what was looked at longest ago is next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

from backy.api import CHUNK_SIZE, ImageReader
from backy.errors import MOST_FINDINGS, ChunkDamageError
from backy.image.chunkmap import checked
from backy.integrity.damage import chunk_ids, report_damage, settle
from backy.integrity.inventory import Inventory, Item, read_position, write_position
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, SCRUB_LOCK, exclusive, shared
from backy.system.parallel import in_parallel
from backy.system.progress import Steps, quiet
from backy.text.phrases import counted

log = logging.getLogger(__name__)


@dataclass
class Scrubbed:
    """What a scrub found."""

    total: int = 0
    """Chunks that there are to look at."""
    chunks: int = 0
    """Chunks that were looked at."""
    bytes: int = 0
    """Bytes of plain content that were read and compared with their ids."""
    damaged: list[ChunkDamageError] = field(default_factory=list)
    distrusted: list[str] = field(default_factory=list)
    """Ids of the revisions that refer to what is damaged."""
    problems: list[str] = field(default_factory=list)
    """What else is wrong: records and maps that can not be read."""

    @property
    def complete(self) -> bool:
        """Whether everything was looked at."""
        return self.chunks >= self.total


@dataclass
class Scrub:
    """A scrub of one repository; `run` does it."""

    repository: Repository
    deep: bool
    clock: Callable[[], datetime]
    only: Revision | None = None
    """Look at this revision only, from its begin to its end."""
    rate: float | None = None
    """Bytes per second to read at most."""
    longest: timedelta | None = None
    steps: Steps = quiet
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self._result = Scrubbed()
        self._suspects: list[Item] = []
        self._last: Item | None = None

    def run(self) -> Scrubbed:
        """Look at all there is, draw the conclusions and return what was found.

        Raises:
            RepositoryBusyError: another deep scrub is running.
        """
        directory = self.repository.directory
        with ExitStack() as stack:
            position: Path | None = None
            if self.deep and self.only is None:
                stack.enter_context(exclusive(directory, SCRUB_LOCK))
                position = directory / SCRUB_LOCK
                self._last = read_position(position)
            stack.enter_context(shared(directory, PURGE_LOCK))
            try:
                self._visit(Inventory(self.repository, self._revisions()))
                if self._suspects:
                    self._conclude()
            finally:
                # with damage that nothing followed from, the next scrub begins where this one did and finds it again
                if position and self._last and not self._suspects:
                    write_position(position, self._last)
        return self._result

    def _revisions(self) -> list[Revision]:
        """Return the complete revisions that are to be looked at."""
        if self.only is not None:
            return [self.repository.records.current(self.only)]
        sound, damaged = self.repository.records.survey()
        self._result.problems += [str(error) for error in damaged]
        return [revision for revision in sound if revision.complete]

    def _visit(self, inventory: Inventory) -> None:
        """Look at everything, or as much of it as there is time for."""
        result = self._result
        result.total = inventory.count
        result.problems += inventory.problems
        progress = self.steps("scrub", inventory.count * CHUNK_SIZE)
        begin = self.monotonic()
        with closing(self._look(inventory.items(self._last))) as looks:
            for item, length, error in looks:
                self._last = item
                result.chunks += 1
                result.bytes += length
                progress(CHUNK_SIZE)
                if error is not None:
                    self._suspects.append(item)
                self._slow_down(result.bytes, begin)
                if self.longest is not None and self.monotonic() - begin >= self.longest.total_seconds():
                    return

    def _look(self, items: Iterable[Item]) -> Generator[tuple[Item, int, ChunkDamageError | None], None, None]:
        """Yield, of each of `items`, how many bytes were read and what is wrong."""
        for (storage, revision_id), group in groupby(items, key=lambda item: (item.storage, item.revision_id)):
            with (
                self.repository.storage(storage).open(revision_id) as reader,
                closing(self._checks(reader, group)) as checks,
            ):
                yield from checks

    def _checks(
        self, reader: ImageReader, items: Iterable[Item]
    ) -> Generator[tuple[Item, int, ChunkDamageError | None], None, None]:
        def check(item: Item) -> tuple[Item, int, ChunkDamageError | None]:
            try:
                return item, self._check(reader, item), None
            except ChunkDamageError as error:
                return item, 0, error

        return in_parallel(check, items)

    def _check(self, reader: ImageReader, item: Item) -> int:
        if not self.deep:
            reader.probe(item.index, item.chunk_id)
            return 0
        return len(checked(item.chunk_id, reader.read(item.index, item.chunk_id)))

    def _slow_down(self, done: int, begin: float) -> None:
        """Wait until `done` bytes are what the rate allows."""
        early = done / self.rate - (self.monotonic() - begin) if self.rate else 0
        if early > 0:
            self.sleep(early)

    def _conclude(self) -> None:
        """Report what is damaged still, now that no backup mends anything, and distrust what refers to it."""
        result = self._result
        try:
            with exclusive(self.repository.directory, BACKUP_LOCK, wait=True):
                known = {(revision.storage, revision.id) for revision in self.repository.records.history()}
                items = [
                    item for item in self._suspects if not item.revision_id or (item.storage, item.revision_id) in known
                ]
                with closing(self._look(items)) as looks:
                    for _, _, error in looks:
                        if error is not None:
                            few = len(result.damaged) < MOST_FINDINGS
                            result.damaged.append(error if few else error.without_evidence())
                report_damage(self.repository, result.damaged, self.clock, mended=False)
                result.distrusted = settle(self.repository, chunk_ids(result.damaged), None)
            self._suspects.clear()
        except OSError as error:
            found = ", ".join(item.chunk_id.hex() for item in self._suspects[:3])
            result.problems.append(
                f"{counted(len(self._suspects), 'chunk seems', 'chunks seem')} to be damaged, such as {found}, "
                f"which could not be noted: {error}"
            )
