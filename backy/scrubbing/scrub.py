"""Checks everything that is stored, without the source: whether it is there (light) or sound (deep).

A deep scrub that ends early, because its time is over or it is interrupted, writes down how far it came. The next one
continues there, so that it begins with the chunks that were checked longest ago. `verify_all` reads whole revisions,
and has a verdict on each.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from backy.api import CHUNK_SIZE, ChunkDamageError, ImageReader, ListedStorage, checked
from backy.durable import read_file
from backy.errors import MOST_FINDINGS, BackyError, DamageError, RevisionNotFoundError, StorageError, warned
from backy.image.stored import attempts
from backy.integrity.damage import Judge, note_damage
from backy.plugins.events import Events
from backy.repository.attachments import problems as attachment_problems
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision
from backy.repository.storages import threads_for
from backy.system.limits import Limit
from backy.system.locking import PURGE_LOCK, SCRUB_LOCK, exclusive, shared
from backy.system.progress import Steps, quiet
from backy.text.phrases import counted

log = logging.getLogger(__name__)


class Item(msgspec.Struct, frozen=True, order=True):
    """A stored chunk. A scrub visits items in their sort order, and `.scrub` has the one that was checked last."""

    storage: str
    """Identity of the storage."""
    revision_id: str
    """Empty if the revisions of the storage share chunks."""
    index: int
    chunk_id: bytes
    round: str = ""
    """In `.scrub`: name of the scrubs of which that was one."""


class Inventory:
    """The stored chunks of some revisions.

    Storages come one after the other. Chunks that revisions share come in the order of their ids, all others in that
    of revision and index.
    """

    def __init__(self, repository: Repository, revisions: Iterable[Revision]) -> None:
        self._repository = repository
        self._own: dict[str, list[Revision]] = {}
        self.problems: list[str] = []
        """Unreadable maps, incomplete raw images, storages that are not installed."""
        distinct: dict[str, set[bytes]] = {}
        for revision in sorted(revisions, key=lambda revision: revision.id):
            name = repository.store_of(revision)
            try:
                shares_chunks = repository.storage(name).shares_chunks
                chunks = repository.records.read_map(revision)
                if shares_chunks:
                    distinct.setdefault(name, set()).update(chunks.distinct())
                    continue
                # The map is not kept: all maps together could fill the memory.
                self._own.setdefault(name, []).append(revision)
                # A raw image of the wrong size may have all its chunks, but `dd` would copy too little or too much.
                repository.raw_path(revision)
            except BackyError as error:
                # else it was forgotten since it was listed
                if repository.records.has(revision):
                    self.problems.append(str(error))
        self._shared = {name: sorted(chunk_ids) for name, chunk_ids in distinct.items()}

    def items(self, last: Item | None, *, rest: bool = False) -> Iterator[Item]:
        """Yield every chunk once: those after `last` first, then the others unless `rest`; in order without `last`."""
        yield from (item for item in self._in_order() if last is None or item > last)
        if last is not None and not rest:
            yield from (item for item in self._in_order() if item <= last)

    def _in_order(self) -> Iterator[Item]:
        for name in sorted({*self._shared, *self._own}):
            for chunk_id in self._shared.get(name, ()):
                yield Item(name, "", 0, chunk_id)
            for revision in self._own.get(name, ()):
                # one that was sound a moment ago and is not there was forgotten meanwhile
                with suppress(DamageError):
                    chunks = self._repository.records.read_map(revision)
                    yield from (Item(name, revision.id, index, chunks[index]) for index in chunks.data())


def read_position(path: Path) -> Item | None:
    """Return the chunk that the last scrub checked last, or None if it is not known."""
    with warned(log, f"{path} can not be read, the scrub begins anew", (msgspec.DecodeError, UnicodeDecodeError)):
        # the file is empty until the first scrub ends
        return msgspec.json.decode(read_file(path) or b"null", type=Item | None)
    return None


def write_position(path: Path, last: Item) -> None:
    """Write to `path` which chunk was checked last; log a failure."""
    # Not replaced by a new file: `path` is the lock file, and the lock belongs to the file that is open.
    # A crash may tear it. Losing it costs only time.
    with warned(log, f"{path} can not be written, the next scrub begins anew", OSError):
        path.write_bytes(msgspec.json.encode(last))


@dataclass
class Scrubbed:
    """The result of a scrub."""

    total: int = 0
    """Chunks to check."""
    chunks: int = 0
    """Chunks that were checked."""
    bytes: int = 0
    """Bytes of uncompressed content that were read and compared with their ids."""
    damaged: list[ChunkDamageError] = field(default_factory=list)
    """The damage, one error for each chunk."""
    distrusted: list[str] = field(default_factory=list)
    """Ids of the revisions that refer to damaged chunks."""
    problems: list[str] = field(default_factory=list)
    """Other defects, such as unreadable records and maps."""

    @property
    def complete(self) -> bool:
        """Whether everything was checked."""
        return self.chunks >= self.total

    @property
    def figures(self) -> dict[str, Any]:
        """The result as plain values, as `scrub --json` prints it."""
        # Without the evidence, which a report has: chunks of megabytes are nothing for a terminal.
        damaged = [{"chunk": error.chunk_id.hex(), "cause": error.cause} for error in self.damaged]
        return {**vars(self), "complete": self.complete, "damaged": damaged}


@dataclass
class Scrub:
    """A scrub of one repository; `run` does it."""

    repository: Repository
    deep: bool
    """Whether chunks are read and compared with their ids; else the storage only looks for their files."""
    clock: Clock
    only: Revision | None = None
    """The only revision to check, from its beginning; None for all."""
    rate: float | None = None
    """Bytes per second to read at most."""
    longest: timedelta | None = None
    """Time after which the scrub ends."""
    round: str = ""
    """Name of several scrubs that check each chunk once, all together; the first one begins with the first chunk."""
    steps: Steps = quiet
    monotonic: Callable[[], float] = time.monotonic
    """Returns seconds."""
    sleep: Callable[[float], None] = time.sleep
    events: Events | None = None
    """The plugins to tell of the end; None stands for the installed ones."""

    def __post_init__(self) -> None:
        self._result = Scrubbed()
        self._suspects: list[Item] = []
        self._last: Item | None = None

    def run(self) -> Scrubbed:
        """Check all chunks, keep evidence of damage, distrust revisions that refer to it, and return what was found.

        Raises:
            RepositoryBusyError: another deep scrub is running.
        """
        with self.events or Events.installed(self.repository.config.hooks) as events:
            result, job = self._run(), self.repository.job
            if result.damaged:
                revisions, chunks = tuple(result.distrusted), len(result.damaged)
                events.tell("backy_damage_found", job=job, revisions=revisions, chunks=chunks)
            figures = {"mode": "deep" if self.deep else "light", **result.figures}
            events.tell("backy_scrub_finished", job=job, result=figures)
        return result

    def _run(self) -> Scrubbed:
        directory = self.repository.directory
        with ExitStack() as stack:
            # Only a scrub of all chunks has a position; one of a single revision would lose that of the others.
            position = directory / SCRUB_LOCK if self.deep and self.only is None else None
            name = self.round
            if position:
                stack.enter_context(exclusive(directory, SCRUB_LOCK))
                last = read_position(position)
                # one in between by hand has been further, or read all
                name = self.round or (last.round if last else "")
                self._last = last if last and last.round == name else None
            stack.enter_context(shared(directory, PURGE_LOCK))
            try:
                self._visit(Inventory(self.repository, self._revisions()))
                if self._suspects:
                    self._conclude()
            finally:
                # Suspects are left if they could not be noted: the next scrub begins where this one did to find them.
                if position and self._last and not self._suspects:
                    write_position(position, msgspec.structs.replace(self._last, round=name))
        return self._result

    def _revisions(self) -> list[Revision]:
        """Return the revisions to check."""
        if self.only is not None:
            return [self.repository.records.current(self.only)]
        sound, damaged = self.repository.records.survey()
        self._result.problems += [str(error) for error in damaged]
        self._result.problems += [revision.state_problem for revision in sound if revision.state_problem]
        for revision in sound:
            self._result.problems += attachment_problems(self.repository.records, revision)
        return sound

    def _visit(self, inventory: Inventory) -> None:
        """Check all chunks, or as many as there is time for."""
        result = self._result
        items = partial(inventory.items, self._last, rest=bool(self.round))
        result.total = sum(1 for _ in items())
        result.problems += inventory.problems
        progress = self.steps("scrub", result.total * CHUNK_SIZE)
        limits = [Limit(self.rate, None, self.monotonic, self.sleep)] if self.rate else []
        limits += self.repository.limits("scrub")
        begin = self.monotonic()
        with closing(self._look(items())) as looks:
            for item, found in looks:
                self._last = item
                result.chunks += 1
                progress(CHUNK_SIZE)
                if isinstance(found, ChunkDamageError):
                    # Not the error: a backup may be repairing the chunk, and evidence fills the memory.
                    self._suspects.append(item)
                else:
                    result.bytes += found
                    for limit in limits:
                        limit.take(found)
                if self.longest is not None and self.monotonic() - begin >= self.longest.total_seconds():
                    return

    def _look(self, items: Iterable[Item]) -> Generator[tuple[Item, int | ChunkDamageError], None, None]:
        """Yield each of `items` with the number of bytes that were read, or with its damage."""
        for (storage, revision_id), group in groupby(items, key=lambda item: (item.storage, item.revision_id)):
            asked = self.repository.storage(storage)
            if not self.deep and not revision_id and isinstance(asked, ListedStorage):
                # After the maps were read, so that a backup that runs has stored all that they name.
                yield from attempts(partial(_listed, asked.inventory()), group, 1)
                continue
            with asked.open(revision_id) as reader:
                # `yield from` also ends the threads before the reader is closed, if the caller stops early.
                yield from attempts(partial(self._check, reader), group, threads_for(asked))

    def _check(self, reader: ImageReader, item: Item) -> int:
        """Return how many bytes of a chunk were read; raises ChunkDamageError."""
        if not self.deep:
            reader.probe(item.index, item.chunk_id)
            return 0
        return len(checked(item.chunk_id, reader.read(item.index, item.chunk_id)))

    def _conclude(self) -> None:
        """Check the suspects again while no backup runs; keep evidence of those still damaged, and distrust."""
        result = self._result
        try:
            # A backup may have repaired suspects meanwhile.
            with self.repository.locked(wait=True):
                with closing(self._look(self._known_suspects())) as looks:
                    for _, found in looks:
                        if isinstance(found, ChunkDamageError):
                            few = len(result.damaged) < MOST_FINDINGS
                            result.damaged.append(found if few else found.without_evidence())
                result.distrusted = note_damage(self.repository, result.damaged, self.clock)
            self._suspects.clear()
        except (OSError, StorageError) as error:
            # A read-only file system, or records that can not be published, must not hide the damage.
            few_ids = ", ".join(item.chunk_id.hex() for item in self._suspects[:3])
            seem = counted(len(self._suspects), "chunk seems", "chunks seem")
            result.problems.append(f"{seem} to be damaged, such as {few_ids}, which could not be noted: {error}")

    def _known_suspects(self) -> list[Item]:
        """Return the suspects without those of revisions that were forgotten meanwhile, or converted."""
        known = {(self.repository.store_of(revision), revision.id) for revision in self.repository.records.history()}
        return [item for item in self._suspects if not item.revision_id or (item.storage, item.revision_id) in known]


def _listed(stored: Mapping[bytes, int], item: Item) -> int:
    """Return 0, the bytes that were read; raise ChunkDamageError if the list has no chunk, or an empty one."""
    if stored.get(item.chunk_id, 0) <= 0:
        raise ChunkDamageError(item.chunk_id, "the storage does not list it")
    return 0


def verify_all(
    repository: Repository, specification: str | None, tell: Callable[[Revision | str], None], steps: Steps = quiet
) -> int:
    """Verify one revision, or all that are distrusted, tell hooks of damage, and return how many were read.

    Args:
        repository: Has the revisions.
        specification: SPEC of one revision; None for all that are distrusted.
        tell: Called with each revision as it is now, as soon as it is judged; with a text for operators in place of one
            that was forgotten meanwhile.
        steps: Called as each revision begins.

    Raises:
        DamageError: after all revisions are read, if any is damaged or wrong; the text names each of them.
        RevisionNotFoundError: there is no revision that SPEC stands for, or it was forgotten meanwhile.
    """
    if specification is None:
        revisions = [revision for revision in repository.records.history() if revision.state.distrusted]
    else:
        revisions = [repository.records.select(specification)]
    problems = []
    with Events.installed(repository.config.hooks) as events:
        judge = Judge(repository, steps=steps, events=events)
        for revision in revisions:
            try:
                judged = judge.verify(revision)
            except DamageError as error:
                problems.append(str(error))
            except RevisionNotFoundError as error:
                # One of many that is gone needs no verdict. The only one that was asked for is missed.
                if specification is not None:
                    raise
                tell(str(error))
            else:
                tell(judged)
                problems += attachment_problems(repository.records, judged)
                if judged.damaged:
                    problems.append(f"revision {judged.id} has {counted(len(judged.damaged), 'damaged chunk')}")
                # sound, but reading the storage proves nothing of what the source had
                elif judged.state.wrong:
                    problems.append(judged.doubt)
    if problems:
        raise DamageError(f"{'; '.join(problems)}; 'backy reports list' tells more")
    return len(revisions)
