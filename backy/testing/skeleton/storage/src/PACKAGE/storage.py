"""The storage itself. This one has a file for each chunk, so that it works at once: put your system in its place."""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from backy.api import CHUNK_SIZE, ChunkDamageError, Held, ImageReader, ImageWriter, Purged, Stored
from backy.durable import sync_folder, write_file
from backy.marker import Marker


class CLASSStorage:
    """Keeps each chunk under its id: revisions share what they have in common."""

    raw = False
    """No revision is a file that `dd` could read."""
    shares_chunks = True
    """The id alone says where a chunk is."""

    restore_hint = "the files that are named like chunks are the chunks, as <id>.map has them"
    """What `README` in the repository tells those who have no backy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._marker = Marker(folder / "store", "NAME")

    @property
    def identity(self) -> str:
        """The id by which this store is known wherever it is copied to."""
        return self._marker.identity

    def initialize(self, identity: str) -> None:
        """Prepare the folder."""
        self._folder.mkdir(exist_ok=True)
        self._marker.write(identity)
        sync_folder(self._folder.parent)

    @contextmanager
    def create(
        self, revision_id: str, parent: str | None, size: int, reliable: Container[bytes]
    ) -> Iterator[ImageWriter]:
        """Begin a revision. What is written for one that fails is referred to by none, and purged some time."""
        yield CLASSWriter(self._folder, reliable)

    @contextmanager
    def open(self, revision_id: str) -> Iterator[ImageReader]:
        """Open a revision. All of them are read alike."""
        yield CLASSReader(self._folder)

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        """Replace a damaged chunk, durably."""
        write_file(self._folder / chunk_id.hex(), data)

    def remove(self, revision_id: str) -> None:
        """Drop what belongs to one revision alone: nothing does."""

    def held(self, live: Container[bytes]) -> Held:
        """Tell what is stored for the sake of other chunks: nothing is."""
        return Held()

    def purge(self, live: Container[bytes]) -> Purged:
        """Remove all chunks that no revision refers to, and what a crash left of others."""
        dead = [path for path in self._folder.iterdir() if path.name != "store" and not _is_one_of(path.name, live)]
        size = sum(path.stat().st_size for path in dead)
        for path in dead:
            path.unlink()
        return Purged(len(dead), size)

    def dispose(self) -> None:
        """Remove what `initialize` made; a crash may have removed it before."""
        shutil.rmtree(self._folder, ignore_errors=True)


class CLASSWriter:
    """A new revision. Several threads write to it at once."""

    def __init__(self, folder: Path, reliable: Container[bytes]) -> None:
        self._folder = folder
        self._reliable = reliable
        self._lock = Lock()
        self._written: dict[bytes, int] = {}

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        """Store a chunk, unless it is there. The files of revisions that were never completed may be torn."""
        path = self._folder / chunk_id.hex()
        if chunk_id in self._reliable and path.exists():
            return len(data)
        with self._lock:  # an image may have the same chunk at several places
            new = chunk_id not in self._written
            self._written[chunk_id] = len(data)
        if new:
            write_file(path, data)
        return len(data)

    def zero(self, index: int) -> None:
        """Note that a chunk is all zeroes now: backy knows it, and never asks for it."""

    def commit(self) -> Stored:
        """Make everything durable. `write_file` has done so."""
        return Stored(sum(self._written.values()))


class CLASSReader:
    """A stored revision. Several threads read it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, index: int, chunk_id: bytes) -> bytes:
        """Return a chunk. backy compares it with its id."""
        try:
            return (self._folder / chunk_id.hex()).read_bytes()
        except OSError as error:
            raise ChunkDamageError(chunk_id, f"it can not be read: {error.strerror}") from error

    def probe(self, index: int, chunk_id: bytes) -> int:
        """Return what would be read, without reading it."""
        try:
            size = (self._folder / chunk_id.hex()).stat().st_size
        except OSError as error:
            raise ChunkDamageError(chunk_id, f"it can not be read: {error.strerror}") from error
        if not 0 < size <= CHUNK_SIZE:
            raise ChunkDamageError(chunk_id, f"its file has an impossible size, {size} bytes")
        return size


def _is_one_of(name: str, live: Container[bytes]) -> bool:
    """Tell whether a file is a chunk that is needed; a temporary file is not."""
    try:
        return bytes.fromhex(name) in live
    except ValueError:
        return False
