"""Writes chunks: each content once, under its id, first under a temporary name.

The file `unfinished` of the store has the ids of the chunks that a backup has stored which did not end, by their index:
32 bytes for each chunk of the image, zeroes for one that is not stored. So the backups that fail one after the other
keep one image together, whatever they store. Nothing depends on what it says: a chunk is read back before a backup
relies on it.
"""

import logging
import os
import threading
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from backy.api import CHUNK_SIZE, LARGEST_IMAGE, PAGE_SIZE, Extent, Leftover, Stored, checked, chunk_count, identify
from backy.direct import DirectWriter, switched
from backy.durable import READ_ONLY, closed_at_end, naming, pwrite_all, read_file, sync_file_system, sync_folder
from backy.errors import MOST_FINDINGS, ChunkDamageError, warned
from backy.pages import differing_pages, total
from backy_storages_chunked.codec import LARGEST_FRAME, Codec, apply_delta, encode_delta, make_delta
from backy_storages_chunked.files import ChunkFile, ChunkFiles, ChunkReader, blamed_on
from backy_storages_chunked.pool import ID_SIZE

log = logging.getLogger(__name__)
NAME = "unfinished"
_LARGEST = chunk_count(LARGEST_IMAGE) * ID_SIZE
Durability = Literal["none", "filesystem", "file"]
Pages = Sequence[int] | None
"""Numbers of pages, ascending, as a source tells them; None if it does not."""
_COARSE = 16 * PAGE_SIZE
"""Bytes of a change that may be no more than one page: as dirty bitmaps of QEMU and btrfs's compression round it up."""
_MOST_TOLD = 64
"""Pages of a chunk, if they are told: of more, too many may be the same, and would be kept for as long as the delta."""


class Base(NamedTuple):
    """A chunk that a new delta can be made of."""

    file: ChunkFile
    pages: Callable[[], list[int]]
    """Returns the numbers of the pages in which the new chunk differs."""
    size: int
    """Bytes of its file."""
    spent: int
    """Bytes of the deltas made of it so far, along the chunk's history."""


class ChunkWriter:
    """Stores a new revision. Safe to use from several threads."""

    def __init__(
        self, files: ChunkFiles, codec: Codec, durability: Durability, reliable: Container[bytes], size: int | None
    ) -> None:
        """Begin an image of `size` bytes; None for a repair, which stores what it is given."""
        self.hope = 0
        """How many more chunks may be unlike what others have there than are alike. A first image begins with some."""
        self._new: dict[bytes, int] = {}
        """Indexes of the full chunks that the pool does not have, by id."""
        self._files = files
        self._codec = codec
        self._durability = durability
        self._reliable = reliable
        self._reader = ChunkReader(files, codec)
        self._direct = DirectWriter()
        self._lock = threading.Lock()
        self._claimed: set[bytes] = set()
        self._fresh: set[bytes] = set()
        self._folders: set[str] = set()
        self._stored = 0
        self._compared: list[int] = []
        self._damaged: list[ChunkDamageError] = []
        # Opened before the first write, because syncfs reports the errors since then.
        self._root = os.open(files.directory, os.O_RDONLY | os.O_DIRECTORY)
        self._notes = None if size is None else opened(files.directory, size)

    def close(self) -> None:
        """Close the store."""
        for descriptor in filter(None, (self._root, self._notes)):
            os.close(descriptor)

    def offer(self, data: bytes, frame: bytes) -> None:
        """Store this frame if `data` is written next, and in full."""
        self._codec.offer(data, frame)

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None, told: Pages = None) -> int:
        """Store a chunk unless it is stored already; return how many of its bytes differ from the previous chunk.

        The pages `told` are believed to be all that differ. None compares the chunks.
        """
        # Two threads may have the same content for different indexes: the first one stores it.
        with self._lock:
            claimed = chunk_id in self._claimed
            self._claimed.add(chunk_id)
        found = None if previous is None else self._previous(previous, data, told)
        # In this order: most of what is new is not stored, or only by this backup. The maps need not be read for it.
        there = self._files.find(chunk_id)
        if chunk_id in self._fresh or not (there and self._is_stored(there) and chunk_id in self._reliable):
            self._fresh.add(chunk_id)
            if not claimed and not (there and self._notes and self._is_left(index, there, data)):
                self._store_chunk(index, found[1] if found else (), ChunkFile(chunk_id), data, there)
            if self._notes:
                note(self._notes, index, chunk_id)
        return len(data) if found is None else total(found[0], len(data))

    def write_changes(self, index: int, chunk_id: bytes, data: bytes, previous: bytes, told: Iterable[Extent]) -> int:
        """Store a chunk as `write` does, and believe which pages differ if few are told."""
        # what a file that is there already is made of has to be read before it can be relied on
        pages = None if self._files.find(chunk_id) else exact_pages(told, index * CHUNK_SIZE)
        return self.write(index, chunk_id, data, previous, pages)

    def zero(self, index: int) -> None:
        """Do nothing: zero chunks have no files."""

    def commit(self) -> Stored:
        """Sync what was written, as far as the option `durability` asks for it.

        Raises:
            OSError: data could not be written.
        """
        if self._durability == "filesystem":
            with naming(self._files.directory):
                sync_file_system(self._root)
        elif self._durability == "file":
            for folder in sorted(self._folders):
                sync_folder(folder)
            sync_folder(self._files.directory)
        for chunk_id, index in self._new.items():
            self._files.pool.give(self._files.path(ChunkFile(chunk_id)), index)
        durable = self._durability != "none"
        return Stored(self._stored, durable=durable, damaged=tuple(self._damaged), compared=self._compared)

    def _is_stored(self, file: ChunkFile) -> bool:
        """Return whether all files of a reliable chunk are there."""
        # That they are whole is known from when they were written; that nobody removed them is not.
        return all(self._files.exists(other) for other in file.made_of)

    def _is_left(self, index: int, file: ChunkFile, data: bytes) -> bool:
        """Return whether a backup that did not end has left this chunk, which may be torn; sync it as a new one."""
        parts = [*file.made_of, file]
        try:
            for part in parts:
                # The cache may have what a failing disk never got, and nobody was told.
                self._files.drop_cached(part, sync=self._durability == "file")
            if self._reader.read(index, file.chunk_id) != data:
                return False
            self._count(self._files.size(file), parts)
            self._compared.append(index)
        except (OSError, ChunkDamageError):
            return False
        return True

    def _previous(self, chunk_id: bytes, data: bytes, told: Pages) -> tuple[list[int], Sequence[Base]] | None:
        """Return the pages in which `data` differs from the previous chunk, and its bases; None if it is damaged.

        The last base is the full chunk. Before it, there may be a delta whose pages a new delta may take over.
        """
        try:
            with blamed_on(chunk_id):
                return self._compared_with(self._reader.locate(chunk_id), data, told)
        except ChunkDamageError as error:
            # A delta made of damage would be damaged too. The caller stores a full chunk and goes on.
            log.warning("%s; what changed in it is stored in full", error)
            with self._lock:
                self._damaged.append(error if len(self._damaged) < MOST_FINDINGS else error.without_evidence())
            return None

    def _compared_with(self, file: ChunkFile, data: bytes, told: Pages) -> tuple[list[int], Sequence[Base]]:
        """Read a chunk and those that it is made of; only the deltas if the pages are told.

        What a new delta is made of is compared with its id: the first delta's chunk, else the full one.
        """
        files = [*file.made_of, file]
        # A plain delta can be the companion of the next one, as the companion of this one can be once more.
        deltas = [self._reader.delta(one) for one in files[1:]]
        contents = [] if told else [self._reader.content(files[0])]
        for delta in deltas if contents else ():
            contents.append(apply_delta(delta, contents[-1]))
        if contents and identify(contents[:2][-1]) != files[:2][-1].chunk_id:
            # the full one is to blame if it is wrong, too
            for one, content in zip(files, contents, strict=True):
                checked(one.chunk_id, content)

        # What was compared already is not compared again. It must not call itself: a circle of references would keep
        # the contents for long, and each new chunk would get fresh memory from the kernel.
        @cache
        def differing(count: int) -> list[int]:
            """Return the pages in which `data` differs from what the first `count` deltas make."""
            # of the full one, the pages that a delta takes the place of were compared with nothing
            at = count or min(1, len(deltas))
            hidden = chain.from_iterable(delta.pages for delta in deltas[count : None if told else at])
            pages = {*(told or differing_pages(data, contents[at])), *hidden}
            return sorted(page for page in pages if page * PAGE_SIZE < len(data))

        sizes = [self._files.size(one) for one in files]
        spent = [delta.spent + size for delta, size in zip(deltas, sizes[1:], strict=True)]
        bases = [Base(files[n], partial(differing, n), sizes[n], sum(spent[n:])) for n in range(len(files[:2]))]
        return differing(len(deltas)), bases[::-1]

    def _store_chunk(
        self, index: int, bases: Sequence[Base], full: ChunkFile, data: bytes, there: ChunkFile | None
    ) -> None:
        """Store a chunk as a delta if one of `bases` affords it, else in full. The file that is there is no good."""
        # These were read a moment ago and are what their ids say.
        if there in [base.file for base in bases] or (not bases and self._share(full, data)):
            return
        if not bases and there is None and self.hope > 0 and self._files.pool.works:
            bases = self._similar(index, data)
        # Another file with this id may be damaged: a full chunk is stored, which is read before a delta.
        for base in bases if there is None else ():
            pages = base.pages()
            if len(pages) * PAGE_SIZE >= len(data):
                continue
            frame = self._codec.compress(encode_delta(make_delta(data, pages, base.spent)))
            # The deltas of a base, with this one, shall cost no more than the base itself.
            if all(one.spent + len(frame) <= one.size for one in (base, bases[-1])):
                companion = None if base is bases[-1] else base.file.chunk_id
                self._store(ChunkFile(full.chunk_id, bases[-1].file.chunk_id, companion), frame)
                return
        if not self._share(full, data):
            self._store(full, self._codec.compress(data), replaces=there is not None)
            self._new[full.chunk_id] = index

    def _similar(self, index: int, data: bytes) -> Sequence[Base]:
        """Share what another image has at this place, to make a delta of it, if half of its pages are the same."""
        full = ChunkFile(self._files.pool.at(index))
        content = self._taken(full)
        pages = differing_pages(data, content) if content else []
        alike = content is not None and len(pages) * PAGE_SIZE * 2 <= len(data)
        # Where others have nothing alike, each look reads and hashes a chunk in vain: it ends after some.
        self.hope += 1 if alike else -1
        return [Base(full, lambda: pages, self._adopt(full), 0)] if alike else []

    def _share(self, full: ChunkFile, data: bytes) -> bool:
        """Take a full chunk from the pool if that has it, and it is right."""
        return self._taken(full, data) is not None and self._adopt(full) > 0

    def _taken(self, full: ChunkFile, expected: bytes = b"") -> bytes | None:
        """Return the content of a full chunk of the pool, of which this thread has the file now; None for none."""
        if not self._files.pool.take(full.name, self._temporary):
            return None
        with suppress(OSError, ValueError, ChunkDamageError):
            content = self._codec.decompress(read_file(self._temporary, LARGEST_FRAME))
            return content if content == expected else checked(full.chunk_id, content)
        self._files.pool.drop(full.name)
        return None

    def _adopt(self, full: ChunkFile) -> int:
        """Keep the file that was taken; return its size."""
        if self._durability == "file" or self._files.find(full.chunk_id) is not None:
            with closed_at_end(os.open(self._temporary, os.O_RDONLY)) as descriptor:
                os.fsync(descriptor)
        self._put(full)
        # it takes no space that was not taken
        self._count(0, [full])
        return self._files.size(full)

    def _write(self, descriptor: int, frame: bytes) -> None:
        """Write a new file, past the cache if it will be synced."""
        if self._durability == "none":
            pwrite_all(descriptor, frame, 0)
            return
        with switched(descriptor) as direct:
            written = self._direct.pwrite(direct, frame, 0)
        pwrite_all(descriptor, memoryview(frame)[written:], written)

    def _store(self, file: ChunkFile, frame: bytes, *, replaces: bool = False) -> None:
        """Write `frame` to a temporary file and rename it to its final name."""
        path = self._files.path(file)
        # A link may be left there, as renaming one to the same file does nothing: others have that file, too.
        with suppress(FileNotFoundError):
            os.unlink(self._temporary)
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, READ_ONLY)
        with closed_at_end(descriptor), naming(path):
            self._write(descriptor, frame)
            # An existing file may still be a delta's base, so its replacement is fsynced before it takes over.
            if self._durability == "file" or replaces:
                os.fsync(descriptor)
            elif self._durability == "filesystem":
                # Starts writing to the disk, so that the sync at the end has little left to wait for.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        self._put(file)
        self._count(len(frame), [file])

    @property
    def _temporary(self) -> str:
        """Path of the file that this thread makes."""
        return f"{self._files.temporary}/{threading.get_native_id()}"

    def _put(self, file: ChunkFile) -> None:
        """Rename what this thread has made to its final name."""
        path = self._files.path(file)
        try:
            os.rename(self._temporary, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
            os.rename(self._temporary, path)

    def _count(self, size: int, files: Sequence[ChunkFile]) -> None:
        """Count what this revision has in files that no other has, and remember their folders."""
        with self._lock:
            self._stored += size
            self._folders.update(os.path.dirname(self._files.path(file)) for file in files)


def exact_pages(changes: Iterable[Extent], start: int) -> Pages:
    """Return the numbers of the pages of the chunk at `start` that the changes are in; None if these tell too much."""
    found = [(one.offset - start, one.end - start) for one in changes]
    inside = ((max(begin, 0), min(end, CHUNK_SIZE)) for begin, end in found)
    pages = {page for begin, end in inside for page in range(begin // PAGE_SIZE, -(-end // PAGE_SIZE))}
    exact = 0 < len(pages) <= _MOST_TOLD and all(end - begin < _COARSE for begin, end in found)
    return sorted(pages) if exact else None


def opened(folder: Path, size: int) -> int:
    """Open the file `unfinished` for an image of `size` bytes; return the descriptor."""
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    # of a larger image before, no more than this one has
    os.ftruncate(descriptor, chunk_count(size) * ID_SIZE)
    return descriptor


def note(descriptor: int, index: int, chunk_id: bytes) -> None:
    """Note a chunk that is stored, from any thread."""
    # what is not noted is stored again, which is no reason to fail
    with suppress(OSError):
        os.pwrite(descriptor, chunk_id, index * ID_SIZE)


def noted(folder: Path) -> set[bytes]:
    """Return the ids of the chunks that are noted; none, and log a warning, if the file can not be read."""
    # the next backup stores again what is not kept, which is no reason to free no space until then
    text = f"what a backup has stored that did not end is not kept, as {folder / NAME} fails"
    with warned(log, text, OSError), suppress(FileNotFoundError):
        return _read(folder)
    return set()


def _read(folder: Path) -> set[bytes]:
    content = read_file(folder / NAME, _LARGEST)
    return {content[start : start + ID_SIZE] for start in range(0, len(content), ID_SIZE)} - {bytes(ID_SIZE)}


def leftover(files: ChunkFiles) -> Leftover | None:
    """Return what the chunks take that are noted, as far as that can be told; None if there are none."""
    found = []
    # there may be no store, a backup or a purge has just ended, or nothing is kept as this fails
    with suppress(OSError):
        since = datetime.fromtimestamp((files.directory / NAME).stat().st_mtime, UTC)
        for chunk_id in _read(files.directory):
            with suppress(OSError, ChunkDamageError):
                if file := files.find(chunk_id):
                    found.append(files.size(file))
    return Leftover(sum(found), since) if found else None
