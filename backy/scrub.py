"""Looking at everything that is stored, without the source: is it there (light), is it sound (deep)?

Chunks are visited in the order of their ids, or of revision and number where each revision has its own copies. A deep
scrub that runs out of time notes how far it came; the next one begins there, so what was looked at longest ago is next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec

from backy import quarantine
from backy.api import CHUNK_SIZE, ImageReader, Progress, Storage
from backy.chunkmap import ChunkMap, identify
from backy.durable import write_file
from backy.errors import ChunkDamageError, DamageError
from backy.locking import BACKUP_LOCK, PURGE_LOCK, exclusive, shared
from backy.pipeline import in_parallel
from backy.repository import Repository
from backy.revision import Revision
from backy.steps import Steps, quiet
from backy.trust import report_damage, settle

log = logging.getLogger(__name__)
STATE = ".scrub"


class Item(NamedTuple):
    """One stored chunk to look at; items are visited in their order."""

    revision: str
    """Empty where a chunk's id alone says where it is stored."""
    number: int
    identity: bytes


class State(msgspec.Struct, frozen=True):
    """The content of `.scrub`: how far the last deep scrub came."""

    revision: str
    number: int
    identity: str
    finished: datetime | None
    """When all there was had been read once more."""


@dataclass
class Scrubbed:
    """What a scrub found."""

    chunks: int = 0
    bytes: int = 0
    """Bytes of plain content that were read and compared with their ids."""
    complete: bool = True
    """Whether everything was looked at."""
    damaged: list[ChunkDamageError] = field(default_factory=list)
    distrusted: list[str] = field(default_factory=list)
    """Ids of the revisions that refer to what is damaged."""
    problems: list[str] = field(default_factory=list)
    """Records and maps that can not be read."""


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

    def run(self) -> Scrubbed:
        """Look at all there is, draw the conclusions and return what was found."""
        result = Scrubbed()
        storage = self.repository.storage()
        directory = self.repository.directory
        with shared(directory, PURGE_LOCK):
            maps = list(self._maps(result))
            items = self._in_turn(sorted(_items(storage, maps)))
            last = self._visit(storage, items, result, self.steps("scrub", len(items) * CHUNK_SIZE))
            if self.deep and self.only is None:
                self._note(last, complete=result.complete)
            for error in result.damaged[: quarantine.MOST_FINDINGS]:
                report_damage(self.repository, error, self.clock(), mended=False)
            if result.damaged:
                with exclusive(directory, BACKUP_LOCK, wait=True):
                    identities = {error.identity for error in result.damaged}
                    result.distrusted = settle(self.repository, storage, identities, None)
        return result

    def _maps(self, result: Scrubbed) -> Iterator[tuple[str, ChunkMap]]:
        """Yield the map of every complete revision that is to be looked at."""
        sound, damaged = self.repository.survey()
        result.problems += [str(error) for error in damaged]
        for revision in [self.only] if self.only else sound:
            try:
                if revision.complete:
                    yield revision.id, self.repository.read_map(revision)
            except DamageError as error:
                result.problems.append(str(error))

    def _in_turn(self, items: list[Item]) -> list[Item]:
        """Let a deep scrub begin behind the last chunk of the one before."""
        path = self.repository.directory / STATE
        if not self.deep or self.only is not None or not path.exists():
            return items
        try:
            state = msgspec.json.decode(path.read_bytes(), type=State)
            last = Item(state.revision, state.number, bytes.fromhex(state.identity))
        except (msgspec.DecodeError, ValueError) as error:
            log.warning("%s can not be read: %s; the scrub begins anew", path, error)
            return items
        return [item for item in items if item > last] + [item for item in items if item <= last]

    def _visit(self, storage: Storage, items: Iterable[Item], result: Scrubbed, progress: Progress) -> Item | None:
        """Look at `items` until they or the time end; return the last one that was looked at."""
        begin = self.monotonic()
        last = None
        for revision, group in groupby(items, key=lambda item: item.revision):
            with storage.open(revision) as reader, closing(self._checks(reader, group)) as checks:
                for last, length, error in checks:
                    result.chunks += 1
                    result.bytes += length
                    progress(CHUNK_SIZE)
                    if error is not None:
                        result.damaged.append(error)
                    self._slow_down(result.bytes, begin)
                    if self.longest is not None and self.monotonic() - begin >= self.longest.total_seconds():
                        result.complete = False
                        return last
        return last

    def _checks(
        self, reader: ImageReader, items: Iterable[Item]
    ) -> Generator[tuple[Item, int, ChunkDamageError | None], None, None]:
        """Yield what is wrong with each of `items`, and the bytes read for it."""

        def check(item: Item) -> tuple[Item, int, ChunkDamageError | None]:
            try:
                return item, self._check(reader, item), None
            except ChunkDamageError as error:
                return item, 0, error

        return in_parallel(check, items)

    def _check(self, reader: ImageReader, item: Item) -> int:
        if not self.deep:
            reader.probe(item.number, item.identity)
            return 0
        data = reader.read(item.number, item.identity)
        if identify(data) != item.identity:
            raise ChunkDamageError(item.identity, "its content is damaged: it does not have this id", data)
        return len(data)

    def _slow_down(self, done: int, begin: float) -> None:
        """Wait until `done` bytes are what the rate allows."""
        early = done / self.rate - (self.monotonic() - begin) if self.rate else 0
        if early > 0:
            self.sleep(early)

    def _note(self, last: Item | None, *, complete: bool) -> None:
        """Write down how far the scrub came."""
        if last is not None:
            finished = self.clock() if complete else _finished(self.repository.directory / STATE)
            state = State(last.revision, last.number, last.identity.hex(), finished)
            write_file(self.repository.directory / STATE, msgspec.json.encode(state))


def _items(storage: Storage, maps: Sequence[tuple[str, ChunkMap]]) -> set[Item]:
    """Return what there is to look at: each id once, or each chunk of each revision."""
    if storage.shares_chunks:
        return {Item("", 0, identity) for identity in set().union(*(chunks.distinct() for _, chunks in maps))}
    return {Item(revision, index, chunks[index]) for revision, chunks in maps for index in chunks.data()}


def _finished(path: Path) -> datetime | None:
    """Return when the last complete round ended, as noted before."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=State).finished
    except (FileNotFoundError, msgspec.DecodeError):
        return None
