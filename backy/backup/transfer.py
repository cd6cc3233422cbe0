"""What a new revision builds upon, and how its image gets from a snapshot into a storage.

Leftovers are removed first: those of a killed command, or of a machine that stopped. A revision builds upon a parent,
and relies on chunks of others to be stored. Then the chunks are read that may have changed, and those stored that have.
"""

import logging
import threading
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from backy.api import CHUNK_SIZE, ExactSnapshot, HintedImageWriter, ImageWriter, Progress, Snapshot, chunk_count
from backy.durable import TEMPORARY_SUFFIX, names_in
from backy.errors import DamageError, SourceError, warned
from backy.image.spans import spans, whole
from backy.image.stored import ZERO, ChunkMap, entry
from backy.pages import pages_with_data, total
from backy.repository.records import Records, orphans
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.running import begun, end
from backy.repository.storages import threads_for
from backy.system.clocks import boot_id
from backy.system.parallel import in_parallel, thread_count

log = logging.getLogger(__name__)


def clean_up(repository: Repository) -> list[Revision]:
    """Remove what interrupted backups and removals left; return the revisions, those in the trash included.

    The caller holds `.backup`.
    """
    records = repository.records
    # once: of several listings, the one of the records may be the one that fails, and all would be orphans
    names = names_in(repository.directory)
    for revision_id in begun(names):
        # a record counts, sound or not: the backup was complete, and only what tells that it ran was left
        if records.record_path(revision_id).exists():
            end(repository.directory, revision_id)
        else:
            log.info("removing the incomplete revision %s", revision_id)
            repository.remove(revision_id, "clean up")
    # one whose record is published is no leftover, even if it can not be fetched: only an operator gives it up
    for revision_id in orphans(names) - {*begun(names)} - repository.published_records():
        log.info("removing what is left of revision %s", revision_id)
        repository.remove(revision_id, "clean up")
    for name in names:
        if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX):
            # what somebody writes at this moment has its own name by now
            (repository.directory / name).unlink(missing_ok=True)
    sound, damaged = records.survey(names, trash=True)
    for error in damaged:
        log.warning("%s" if error.unread else "%s; 'backy forget -r ID' removes it", error)
    return sound


class Base(NamedTuple):
    """What a new revision builds upon."""

    candidates: Sequence[Revision] = ()
    """Revisions whose chunks need not be stored again."""
    parent: Revision | None = None
    chunks: ChunkMap | None = None
    """The map of the parent."""
    history: Sequence[Revision] = ()
    """What a backup found, the oldest first."""

    @property
    def parent_id(self) -> str | None:
        """Id of the parent."""
        return self.parent.id if self.parent else None


def reliable(revision: Revision, boot: str) -> bool:
    """Tell whether all chunks of a revision are on the disk and sound, as far as is known in the boot with this id."""
    # a wrong one is sound: its wrong chunks are read again, whatever the source tells
    # data that was never synced is still in the page cache until the machine stops
    return not revision.state.distrusted and revision.state.unsynced_boot in {None, boot}


def reliable_in(storage: str, history: Iterable[Revision]) -> list[Revision]:
    """Return the reliable revisions of `history` that the storage with this identity has."""
    boot = boot_id()
    return [revision for revision in history if revision.storage == storage and reliable(revision, boot)]


def nearest(repository: Repository, candidates: Sequence[Revision], seq: int) -> Base:
    """Choose the parent of the revision `seq`: the nearest candidate whose map, and raw image if any, are sound."""
    # it differs least
    for revision in sorted(candidates, key=lambda one: abs(one.seq - seq)):
        with warned(log, f"revision {revision.id} is not built upon", DamageError):
            repository.raw_path(revision)
            return Base(candidates, revision, repository.records.read_map(revision))
    return Base(candidates)


def base_of(repository: Repository, history: Sequence[Revision]) -> Base:
    """Return what a backup may build upon: the reliable revisions of `history` in the job's storage."""
    for revision in history:
        if revision.suspect:
            # until it is read, nobody knows which chunks are damaged, and other revisions may share them
            log.warning("revision %s is distrusted: this backup is a full one and builds upon nothing", revision.id)
            return Base(history=history)
    # numbers grow: the nearest one is the last
    latest = max((revision.seq for revision in history), default=0)
    return nearest(repository, reliable_in(repository.storages.identity, history), latest)._replace(history=history)


class LiveChunks(Container[bytes]):
    """The ids of the sound chunks that some revisions refer to. Safe to use from several threads."""

    def __init__(self, records: Records, revisions: Iterable[Revision], damaged: Container[bytes] = ()) -> None:
        self._records = records
        self._damaged = damaged
        # a chunk that is stored already is most likely one of the newest
        self._unread = list(revisions)
        self._chunk_ids: set[bytes] = set()
        self._latest: ChunkMap | None = None
        self._lock = threading.Lock()

    def __contains__(self, chunk_id: object) -> bool:
        with self._lock:
            # few backups ask, so that most of them never read a map
            while chunk_id not in self._chunk_ids and self._unread:
                self._read(self._unread.pop())
            return chunk_id in self._chunk_ids and chunk_id not in self._damaged

    def _read(self, revision: Revision) -> None:
        try:
            chunks = self._records.read_map(revision)
        except DamageError as error:
            # else it was forgotten since it was listed
            if self._records.has(revision):
                log.warning("%s", error)
            return
        # most ids of a map are those of the map beside it: only the others are added, which is much faster
        self._chunk_ids |= chunks.distinct(self._latest)
        self._latest = chunks


@dataclass
class Transferred:
    """The result of a transfer."""

    chunks: ChunkMap
    hinted: bool = False
    """Whether the source's changes decided which chunks were read; the others are those of the parent."""
    seen: bytearray = field(default_factory=bytearray)
    """By index, whether the chunk is as the source has it, and not as the source's changes made one believe."""
    bytes_read: int = 0
    bytes_written: int = 0
    """Bytes of the pages that differ from the parent, or from zeroes where that has none."""


@dataclass
class Transfer:
    """Stores a snapshot through a writer, whose image begins as a copy of the parent."""

    snapshot: Snapshot
    writer: ImageWriter
    parent: ChunkMap | None
    """The map of the parent; None without one."""
    progress: Progress
    """Called with the bytes that are done."""
    threads: int | None = None
    """How many the storage or the snapshot would like to work for it; None if neither cares."""
    wrong: Collection[int] = ()
    """Indexes of chunks of the parent that are read even if the source tells that they are the same."""
    verified: bool = False
    """Whether a verifier compares what is stored, so that a storage may rely on the pages that the source tells."""

    def __post_init__(self) -> None:
        self._base = self.parent or ChunkMap(0)
        # chunks are stored by several threads, and the counts are theirs in common
        self._lock = threading.Lock()
        # a source need not stand more threads because the storage would like to have them
        self._reading = threading.BoundedSemaphore(threads_for(self.snapshot) or thread_count())
        self._done = Transferred(self._base.resized(self.snapshot.size))

    def run(self) -> Transferred:
        """Read and store every chunk that may have changed.

        Raises:
            SourceError: the source can not be read, or gives fewer bytes than it has.
            StorageError: the storage can not take a chunk.
        """
        for _ in in_parallel(self._store, self._candidates(), self.threads):
            pass  # the work is done while the results, which say nothing, are fetched
        return self._done

    def _candidates(self) -> Iterator[int]:
        """Yield the indexes of the chunks to read; zero those that a hole covers."""
        size = self.snapshot.size
        changes = self.snapshot.changes() if len(self._base) else None
        self._done.hinted = changes is not None
        # without changes, all is as the source says that it is, holes included
        self._done.seen = bytearray([changes is None]) * chunk_count(size)
        more = set() if changes is None else {*self._odd_chunk(size), *self.wrong}
        more.intersection_update(range(chunk_count(size)))
        unknown = "the source does not tell what changed" if len(self._base) else "there is no parent"
        why = unknown if changes is None else "the source tells of a change"
        for span in spans(whole(self.snapshot.extents(), size) if changes is None else changes, size):
            # each once
            more.difference_update(range(span.start, span.stop))
            if span.data:
                log.debug("chunks %d to %d are read: %s", span.start, span.stop - 1, why)
                yield from range(span.start, span.stop)
            else:
                self._zero(span.start, span.stop)
        for index in sorted(more):
            log.debug("chunk %d is read: it was wrong in the parent, or the size of the image is another one", index)
            yield index

    def _odd_chunk(self, size: int) -> list[int]:
        """Return the index of the chunk whose length differs from the parent's, if the size does."""
        # its content differs, too, even if the source does not tell so
        index, rest = divmod(min(size, self._base.size), CHUNK_SIZE)
        return [index] if rest and size != self._base.size else []

    def _zero(self, start: int, stop: int) -> None:
        for index in self._base.data(start, stop):
            self._replace(index, ZERO, b"")
        self.progress(min(stop * CHUNK_SIZE, self.snapshot.size) - start * CHUNK_SIZE)

    def _store(self, index: int) -> None:
        offset = index * CHUNK_SIZE
        length = min(CHUNK_SIZE, self.snapshot.size - offset)
        with self._reading:
            data = self.snapshot.pread(offset, length)
        # a plugin may break its contract, and a short chunk would be stored as if it were the whole one
        if len(data) != length:
            gave = f"{len(data)} instead of {length} bytes at {offset}"
            raise SourceError(f"the source gave {gave}: did it shrink meanwhile?")
        self._replace(index, entry(data), data)
        with self._lock:
            self._done.bytes_read += length
        self._done.seen[index] = 1
        self.progress(length)

    def _replace(self, index: int, chunk_id: bytes, data: bytes) -> None:
        """Set chunk `index` to `chunk_id`; store `data` if the parent has something else there."""
        previous = self._base[index] if index < len(self._base) else ZERO
        self._done.chunks[index] = chunk_id
        if chunk_id == previous:
            return
        if chunk_id == ZERO:
            self.writer.zero(index)
            changed = self._done.chunks.length(index)
        elif previous == ZERO:
            self.writer.write(index, chunk_id, data, None)
            # what a guest has written is the same for every storage, however much of it that stores
            changed = total(pages_with_data(data), len(data))
        else:
            changed = self._write(index, chunk_id, data, previous)
        with self._lock:
            self._done.bytes_written += changed

    def _write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes) -> int:
        """Store a chunk that has data in the parent, too; return how many of its bytes changed."""
        # of where the parent is wrong, or has another length, a source knows too little
        sure = self.verified and index not in self.wrong and len(data) == self._base.length(index)
        if sure and isinstance(self.writer, HintedImageWriter) and isinstance(self.snapshot, ExactSnapshot):
            told = self.snapshot.changes_within(index * CHUNK_SIZE, len(data))
            return self.writer.write_changes(index, chunk_id, data, previous, told)
        return self.writer.write(index, chunk_id, data, previous)
