"""The side that stores: asks for what it lacks, compares each chunk with its id, and makes revisions of it.

The order is that of a backup: chunks, map, state, and the record, which makes the revision complete. What is
interrupted is never seen, and the chunks that are here already are not sent again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from backy.api import PAGE_SIZE, FramedImageWriter, ImageReader, ImageWriter, chunk_count, identify
from backy.backup.transfer import LiveChunks, Transfer, clean_up, nearest, reliable_in
from backy.durable import sync_file_system_of, write_file
from backy.errors import ChunkDamageError, DamageError, PeerError, is_full
from backy.exchange.offer import ALL, Order, new
from backy.exchange.wire import Chunk, Done, Files, Get, Listed, Listing, Want, Wire, crossed, unframed
from backy.image.stored import LARGEST_MAP, ChangedImage, ChunkMap, StoredImage, attempts
from backy.integrity.damage import note_damage
from backy.repository import sealed
from backy.repository.attachments import LARGEST_FILE
from backy.repository.config import CONFIG, name_problem
from backy.repository.journal import digest, head_of
from backy.repository.records import RECORD, STATE
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Origin, Record, Revision, State, utc_now
from backy.repository.running import begin, end, use_number
from backy.repository.storages import threads_for
from backy.system.clocks import boot_id
from backy.system.locking import PURGE_LOCK, shared
from backy.system.progress import Steps, quiet

log = logging.getLogger(__name__)
MANY = 8
"""The number of chunks above which more than one connection is of use."""
LATEST = 9000
"""The year up to which times can be counted on from."""
FURTHEST = 10_000
"""How far the number of a new revision may be above all others where a peer only may append."""


@dataclass
class Arrival:
    """The copy of what the other side has into a repository."""

    repository: Repository
    wires: list[Wire]
    """Connections to the other side; chunks arrive by all of them."""
    listing: Listing
    """What the other side has."""
    place: str
    """What the other side is called in states."""
    more: Callable[[], Iterable[Wire]] = tuple
    """Returns further connections, once there is much to copy."""
    order: Order = ALL
    appending: bool = False
    """Whether the other side is not to be believed: its numbers must not shut out those of others."""
    clock: Clock = utc_now
    steps: Steps = quiet
    copied: list[str] = field(default_factory=list)
    """Ids of the revisions that are here now, and were not before, the oldest first."""
    problems: list[str] = field(default_factory=list)
    """Why others were not copied."""

    def __post_init__(self) -> None:
        self._mine: dict[str, Revision] = {}
        """The revisions here, also those in the trash, by id."""
        self._theirs = {one.id for one in self.listing.revisions}
        """Ids of what the other side has."""
        self._bytes = 0

    def run(self) -> Done:
        """Copy what is missing, the oldest first, and the doubt that the other side has; return what to tell it.

        A repository that is missing is made when the other side has told what it has.

        Raises:
            RepositoryBusyError: another command writes to the repository.
            PeerError: the other side can not go on; what was complete before stays.
            BackyError, OSError: likewise.
        """
        if not (self.repository.directory / CONFIG).exists():
            self.repository = Repository.initialize(self.repository.directory, self.repository.config)
        with self.repository.locked(storing=True, beside=True):
            with self.repository.records.recording():
                self._mine = {one.id: one for one in clean_up(self.repository)}
                self._doubt(self.listing.revisions)
            for one in self.missing():
                with shared(self.repository.directory, PURGE_LOCK), self._failing(one):
                    self._take(one)
        return Done(self.copied, self.problems, self._bytes, head_of(self.repository.records.journal.read()))

    def missing(self) -> list[Listed]:
        """Return the revisions to copy, the oldest first; not what was forgotten here, unless it is named."""
        journal, known = self.repository.records.journal.read(), self.repository.records.ids()
        if not self.order.specifications:
            known |= {
                line.revision for line, _ in journal if line and line.revision and line.act in {"expire", "forget"}
            }
        return [*{one.id: one for one in self.order.of(self.listing.revisions) if one.id not in known}.values()]

    def _doubt(self, listed: Sequence[Listed]) -> None:
        """Take over the doubt of the other side; none is lifted."""
        for one in listed:
            mine = self._mine.get(one.id)
            if mine and one.doubt and not mine.unread:
                state = mine.state.with_doubt_of(_doubt(one.id, one.doubt, mine.size))
                if state != mine.state:
                    log.warning("revision %s is doubted by %s", one.id, self.place)
                    self.repository.records.write_state(Revision.of(mine.record, state), "doubt")

    @contextmanager
    def _failing(self, one: Listed) -> Iterator[None]:
        """Note why a revision can not be copied, and go on with the next one, if damage is all that is wrong."""
        try:
            yield
        except BaseException as error:
            with self.repository.records.recording():
                self.repository.remove(one.id, "clean up")
            if not isinstance(error, DamageError) or is_full(error):
                raise
            self.problems.append(f"{one.id}: {error}")
            log.info("revision %s is not copied: %s", one.id, error)
            if isinstance(error, ChunkDamageError):
                with self.repository.records.recording():
                    note_damage(self.repository, [error], self.clock)
                    self._mine = {each.id: each for each in self.repository.records.history(trash=True)}

    # one revision -----------------------------------------------------------------------------------------------------

    def _take(self, one: Listed) -> None:
        """Copy a revision."""
        repository, records = self.repository, self.repository.records
        used = {each.seq for each in self._mine.values()}
        if self.appending and (one.seq in used or one.seq > max(used, default=one.seq) + FURTHEST):
            raise DamageError(f"its number {one.seq} is used already, or far above all others")
        identity = repository.require_store()
        own = reliable_in(identity, self._mine.values())
        base = nearest(repository, [each for each in own if each.id in self._theirs], one.seq)
        files = self.wires[0].ask(Get(one.id, base.parent_id), Files)
        record, state, chunks = checked_files(one, files, base.chunks)
        with records.recording():
            begin(repository.directory, record)
        storage = repository.storage()
        with ExitStack() as stack:
            reader = stack.enter_context(storage.open(record.id))
            older = stack.enter_context(repository.open_image(base.parent, base.chunks)) if base.parent else None
            arriving = Arriving(chunks, reader, base.chunks or ChunkMap(0), older, self.wires)
            # the store may have some, for another revision or of an interrupted copy: all of them are read
            tried = attempts(lambda index: len(arriving.chunk(index)), new(chunks, base.chunks))
            wanted = [index for index, result in tried if isinstance(result, ChunkDamageError)]
            self._bytes += sum(map(chunks.length, wanted))
            if len(wanted) > MANY:
                for wire in self.more():
                    # what can not be had by one that was refused comes by the others
                    with suppress(PeerError):
                        wire.ask(Get(one.id, one.id), Files)
                        self.wires.append(wire)
            arriving.want(one.id, base.parent_id, wanted)
            live = LiveChunks(records, own, {chunks[index] for index in wanted})
            arriving.writer = writer = stack.enter_context(storage.create(record.id, base.parent_id, record.size, live))
            with arriving.drained(record.id):
                Transfer(arriving, writer, base.chunks, self.steps("copy", record.size), threads_for(storage)).run()
            stored = writer.commit()
        if stored.durable and any(each.state.unsynced_boot for each in own):
            sync_file_system_of(repository.directory)
        with records.recording():
            records.write_map(record.id, chunks)
            if files.attachments:
                write_file(records.attachments_path(record.id), files.attachments)
            origin, unsynced = Origin(self.place, self.clock()), None if stored.durable else boot_id()
            mine = State(id=record.id, tags=state.tags, storage=identity, origin=origin, unsynced_boot=unsynced)
            use_number(repository.directory, record.seq)
            records.add_files("copy", record.id, files.record, sealed.encode(mine.with_doubt_of(state)))
            repository.link_last()
        end(repository.directory, record.id)
        repository.storages.discard()
        self._mine[record.id] = records.read(record.id)
        self.copied.append(record.id)
        log.info("revision %s is here now, from %s", record.id, self.place)


def checked_files(one: Listed, files: Files, base: ChunkMap | None) -> tuple[Record, State, ChunkMap]:
    """Return what the files of a revision say; raises DamageError, PeerError."""
    if files.lost:
        raise DamageError(f"the other side has lost it: {files.lost}")
    record = sealed.decode(files.record, Record, one.id + RECORD)
    state = _doubt(one.id, files.state, record.size)
    content = crossed(unframed(files.map, LARGEST_MAP), b"" if base is None else bytes(base.encode()))
    chunks = ChunkMap.decode(bytearray(content))
    attached = digest(files.attachments) if files.attachments else None
    if (chunks.digest, chunks.size, attached) != (record.map_digest, record.size, record.attachments):
        raise DamageError(f"its map or its attachments are not those that {one.id}{RECORD} names")
    group, late = record.group, max(record.timestamp, record.trusted_time).year > LATEST
    other = (record.seq, record.timestamp) != (one.seq, one.timestamp) or len(files.attachments) > LARGEST_FILE
    if other or late or (group and (group.id != one.id or any(map(name_problem, group.disks)))):
        raise DamageError("it is another one than it was said to be, or none that there can be")
    return record, state, chunks


def _doubt(revision_id: str, content: bytes, size: int) -> State:
    """Return the state of a revision with an image of `size` bytes; raises DamageError."""
    state = sealed.decode(content, State, revision_id + STATE)
    doubted = {*state.damaged, *(state.wrong.chunks if state.wrong else ())}
    if doubted and not 0 <= min(doubted) <= max(doubted) < chunk_count(size):
        raise DamageError(f"{revision_id}{STATE} names chunks that there are not")
    return state


class Arriving(ChangedImage):
    """An image of which some chunks are in the own store, and the others arrive from the other side."""

    def __init__(
        self, chunks: ChunkMap, reader: ImageReader, parent: ChunkMap, base: StoredImage | None, wires: Sequence[Wire]
    ) -> None:
        super().__init__(chunks, reader, parent)
        self._base = base
        self._wires = wires
        self._locks: list[threading.Lock] = []
        self._coming: list[deque[int]] = []
        """The indexes that are still to come by each wire, in order."""
        self._wire_of: dict[int, int] = {}
        self._early: dict[int, Chunk] = {}
        """What has come before the thread that needs it."""
        self._unfit: list[int] = []
        """The index of a chunk that came as it is stored there, and does not have its id."""
        self.writer: ImageWriter | None = None
        """What stores the chunks; it may use their frames."""

    def want(self, revision_id: str, base_id: str | None, indexes: Sequence[int]) -> None:
        """Ask the other side for chunks, by all wires; the caller reads each of them, ascending."""
        for number, wire in enumerate(self._wires):
            part = list(indexes[number :: len(self._wires)])
            self._locks.append(threading.Lock())
            self._coming.append(deque(part))
            if part:
                self._wire_of.update(dict.fromkeys(part, number))
                wire.send(Want(revision_id, base_id, part, unread=True))

    def chunk(self, index: int) -> bytes:
        """Return chunk `index`.

        Raises:
            ChunkDamageError: the own store has it, or that of the base, and it is damaged.
            DamageError: the other side has it, and it is damaged there.
            PeerError: the other side sent something else.
        """
        if index not in self._wire_of:
            return super().chunk(index)
        number = self._wire_of[index]
        with self._locks[number]:
            while index not in self._early:
                self._receive(number)
            arrived = self._early.pop(index)
        try:
            content = content_of(arrived, self.chunks, self._base)
        except PeerError as error:
            self._unfit = [index]
            raise DamageError(str(error)) from error
        if arrived.pages is None and isinstance(self.writer, FramedImageWriter):
            self.writer.offer(content, arrived.frame)
        return content

    def _receive(self, number: int) -> None:
        """Receive the next chunk by a wire."""
        chunk = self._wires[number].receive(Chunk)
        if chunk.index != self._coming[number].popleft():
            raise PeerError(f"the other side sent chunk {chunk.index}, for which nobody has asked")
        self._early[chunk.index] = chunk

    @contextmanager
    def drained(self, revision_id: str) -> Iterator[None]:
        """If damage ends the body, receive what was asked for all the same, so that the wires can go on."""
        try:
            yield
        except DamageError:
            for number, coming in enumerate(self._coming):
                while coming:
                    self._receive(number)
                    self._early.clear()
            for index in self._unfit:
                # now the other side reads it, too, and finds the damage, or is no side to believe
                content_of(self._wires[0].ask(Want(revision_id, None, [index]), Chunk), self.chunks)
            raise


def content_of(arrived: Chunk, chunks: ChunkMap, base: StoredImage | None = None) -> bytes:
    """Return the chunk in a message.

    Raises:
        DamageError: the other side has lost it, or the chunk of the base is damaged here.
        PeerError: it has not the id that `chunks` has for it.
    """
    index, length = arrived.index, chunks.length(arrived.index)
    if arrived.lost:
        raise DamageError(f"the other side has lost it: {arrived.lost}")
    content = unframed(arrived.frame, length)
    if arrived.pages is not None:
        old = base.chunk(index) if base and index < len(base.chunks) else b""
        made = bytearray(old[:length].ljust(length, b"\0"))
        for start, page in enumerate(arrived.pages):
            made[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = content[start * PAGE_SIZE : (start + 1) * PAGE_SIZE]
        content = bytes(made)
    if len(content) != length or identify(content) != chunks[index]:
        raise PeerError(f"the other side sent a chunk {index} that is not what its id says")
    return content
