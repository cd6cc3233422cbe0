"""The side that sends: answers what the other side asks about one repository, and changes nothing but the journal."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import date

from backy.api import PAGE_SIZE
from backy.durable import read_file
from backy.errors import ChunkDamageError, DamageError, PeerError
from backy.exchange.wire import Chunk, Done, Files, Get, List, Listed, Listing, Question, Want, Wire, crossed, framed
from backy.image.stored import ZERO, ChunkMap, StoredImage
from backy.integrity.damage import note_damage
from backy.pages import differing_pages
from backy.repository import sealed
from backy.repository.journal import Head, head_of
from backy.repository.repository import Repository
from backy.repository.revision import Revision, select, utc_now
from backy.system.limits import Limit
from backy.system.parallel import in_parallel
from backy.system.progress import Steps, quiet


@dataclass(frozen=True)
class Order:
    """Which revisions are copied, and how."""

    tags: Collection[str] = ()
    """Those with any of these tags; all if there are none."""
    since: date = date.min
    """Those of this day (UTC) and later."""
    specifications: Sequence[str] = ()
    """Those that SPECs name; all if there are none."""
    limits: Sequence[Limit] = ()
    """How fast, at most, by all connections together."""
    dry_run: bool = False
    """Whether to tell only what would be copied."""

    def of(self, listed: Iterable[Listed]) -> list[Listed]:
        """Return those that are to be copied, the oldest first; raises RevisionNotFoundError if a SPEC names none."""
        history = sorted(listed, key=lambda one: (one.seq, one.timestamp, one.id))
        named = {select(history, one).id for one in self.specifications} or {one.id for one in history}
        tagged = [one for one in history if not self.tags or not set(self.tags).isdisjoint(one.tags)]
        return [one for one in tagged if one.id in named and one.timestamp.date() >= self.since]


ALL = Order()


def new(chunks: ChunkMap, base: ChunkMap | None) -> Iterator[int]:
    """Yield the indexes of the chunks with data that the base has not."""
    return (index for index in chunks.differing(base or ChunkMap(0)) if chunks[index] != ZERO)


@dataclass
class Offer:
    """The revisions of a repository, for one other side."""

    repository: Repository
    order: Order = ALL
    steps: Steps = quiet
    witnessed: list[Head] = field(default_factory=list)
    """The last lines of other journals that this side has seen."""
    damaged: list[ChunkDamageError] = field(default_factory=list)
    """Damage that was found while sending."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: int | None = None
        self._shown = "", quiet("", 0)
        """The revision that is sent, and its progress, by all connections together."""

    def answer(self, first: Wire, *others: Wire) -> Done:
        """Answer questions until the other side is done; return what it said at its end.

        Args:
            first: The connection by which the other side begins and ends.
            others: Connections that it may use beside it.

        Raises:
            PeerError: the other side asks for what it can not get, or ends too early.
        """
        with ExitStack() as stack:
            stack.callback(self._report)
            pool = stack.enter_context(ThreadPoolExecutor(len(others) + 1))
            # all together hold as much in memory as one alone
            self._threads = 1 if others or first.beside else None
            for wire in others:
                pool.submit(self._beside, wire)
                # one that was never taken over waits for a question still
                stack.callback(wire.close)
            return self._answered(first)

    def _answered(self, wire: Wire) -> Done:
        while not isinstance(question := wire.receive(Question), Done):
            self._answer(wire, question)
        return question

    def _beside(self, wire: Wire) -> None:
        """Answer questions by one of several connections, and end that however it goes."""
        with closing(wire):
            self._answered(wire)

    def _answer(self, wire: Wire, question: Question) -> None:
        records = self.repository.records
        if isinstance(question, List):
            listed = self.order.of(
                Listed(one.id, one.seq, one.timestamp, one.tags, sealed.encode(one.state) if one.doubtful else None)
                for one in records.survey()[0]
            )
            wire.send(Listing(listed, [], head_of(records.journal.read()), self.witnessed))
        elif isinstance(question, Get | Want):
            try:
                revision = records.read(question.id)
                base = None if question.base is None else records.read(question.base)
            except FileNotFoundError:
                raise PeerError(f"there is no revision {question.id}, or none {question.base}") from None
            if isinstance(question, Want):
                self._chunks(wire, revision, base, question)
            else:
                wire.send(self._files(revision, base))

    def _files(self, revision: Revision, base: Revision | None) -> Files:
        records = self.repository.records
        try:
            chunks = bytes(records.read_map(revision).encode())
            other = bytes(records.read_map(base).encode()) if base else b""
            attached = read_file(records.attachments_path(revision.id)) if revision.attachments else b""
            record = read_file(records.record_path(revision.id))
        except (DamageError, OSError) as error:
            return Files(b"", b"", b"", b"", str(error))
        return Files(record, sealed.encode(revision.state), attached, framed(crossed(chunks, other)))

    def _chunks(self, wire: Wire, revision: Revision, base: Revision | None, question: Want) -> None:
        indexes = question.indexes
        with ExitStack() as stack:
            image = stack.enter_context(self.repository.image(revision))
            other = stack.enter_context(self.repository.image(base)) if base else None
            if [*indexes] != sorted({*indexes}) or max(indexes, default=-1) >= len(image.chunks):
                raise PeerError(f"these are no chunks of revision {revision.id}")
            with self._lock:
                if self._shown[0] != revision.id:
                    sent = new(image.chunks, other.chunks if other else None)
                    self._shown = revision.id, self.steps("copy", sum(map(image.chunks.length, sent)))
                progress = self._shown[1]
            for chunk in in_parallel(self._encoder(image, other, unread=question.unread), indexes, self._threads):
                wire.send(chunk)
                progress(image.chunks.length(chunk.index))

    def _encoder(self, image: StoredImage, base: StoredImage | None, *, unread: bool) -> Callable[[int], Chunk]:
        """Return what makes the message with a chunk of `image`."""

        def encoded(index: int) -> Chunk:
            based = base and index < len(base.chunks) and base.chunks[index] != ZERO
            try:
                if unread and not based and (frame := image.frame(index)):
                    return Chunk(index, None, frame)
                content = image.chunk(index)
            except ChunkDamageError as error:
                self.damaged.append(error)
                return Chunk(index, None, b"", str(error))
            pages, parts = None, [content]
            # a base that is damaged here may be sound there, but what is made of all pages needs none
            with suppress(ChunkDamageError):
                if base and based:
                    found = differing_pages(content, base.chunk(index))
                    # what has few pages in common is as long, and takes more work on both sides
                    if len(found) * PAGE_SIZE * 2 <= len(content):
                        pages = found
                        parts = [content[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] for page in pages]
            return Chunk(index, pages, framed(b"".join(parts)))

        return encoded

    def _report(self) -> None:
        """Tell of damage that was found, as `backy verify` does."""
        if self.damaged:
            with self.repository.locked(wait=True):
                note_damage(self.repository, self.damaged, utc_now)
