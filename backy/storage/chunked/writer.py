"""Writing chunks: each content once, under its id, first under a temporary name."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Container
from typing import Literal, NamedTuple

from backy.api import PAGE_SIZE, Stored
from backy.durable import READ_ONLY, naming, sync_file_system, sync_folder, write_all
from backy.errors import ChunkDamageError
from backy.pages import differing_pages
from backy.storage.chunked.codec import Codec, encode_delta, make_delta
from backy.storage.chunked.files import ChunkFile, ChunkFiles
from backy.storage.chunked.reader import ChunkReader

log = logging.getLogger(__name__)
FEW = 16
"""Of so many damaged chunks the evidence is held in memory."""
Durability = Literal["none", "filesystem", "file"]


class Base(NamedTuple):
    """The full chunk that a chunk of the parent revision is made of."""

    identity: bytes
    content: bytes
    size: int
    """Bytes of its file."""
    spent: int
    """Bytes of the deltas written on it so far, along this chunk's history."""
    overlay: dict[int, bytes]
    """The pages by which the parent's chunk differs from the base."""

    def changed(self, data: bytes, pages: list[int]) -> int:
        """Return how many bytes of `data`, which differs from the base in `pages`, the parent's chunk does not have."""
        differing = {page for page in pages if page not in self.overlay}
        differing |= {page for page, old in self.overlay.items() if _page(data, page) != old}
        return sum(len(_page(data, page)) for page in differing)


def _page(data: bytes, number: int) -> bytes:
    return data[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]


class ChunkWriter:
    """A new revision on its way into the chunk store. Safe to use from several threads."""

    def __init__(self, files: ChunkFiles, codec: Codec, durability: Durability, referenced: Container[bytes]) -> None:
        self._files = files
        self._codec = codec
        self._durability = durability
        self._referenced = referenced
        self._reader = ChunkReader(files, codec)
        self._lock = threading.Lock()
        self._claimed: set[bytes] = set()
        self._folders: set[str] = set()
        self._stored = 0
        self._damaged: list[ChunkDamageError] = []
        # opened before the first write: syncfs reports the errors since then
        self._root = os.open(files.directory, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        """Let go of the store."""
        os.close(self._root)

    def write(self, index: int, identity: bytes, data: bytes, previous: bytes | None) -> int:
        """Store a chunk unless it is known to be stored; return how many of its bytes the parent's chunk lacks."""
        with self._lock:
            if identity in self._claimed:
                return len(data)
            self._claimed.add(identity)
        if identity in self._referenced and self._is_stored(identity):
            return len(data)
        base = None if previous is None else self._base(previous)
        if base is None:
            self._store(ChunkFile(identity, None), self._codec.compress(data))
            return len(data)
        pages = differing_pages(data, base.content)
        if identity != base.identity:
            self._store_on(base, identity, data, pages)
        return base.changed(data, pages)

    def zero(self, index: int) -> None:
        """Zero chunks are no files."""

    def commit(self) -> Stored:
        """Bring all to the disk, as far as the job asks for it."""
        if self._durability == "filesystem":
            with naming(self._files.directory):
                sync_file_system(self._root)
        elif self._durability == "file":
            for folder in sorted(self._folders):
                sync_folder(folder)
            sync_folder(self._files.directory)
        return Stored(self._stored, durable=self._durability != "none", damaged=tuple(self._damaged))

    def _is_stored(self, identity: bytes) -> bool:
        """Tell whether the files of a referenced chunk are there; that they are whole is known."""
        file = self._files.find(identity)
        return file is not None and (file.base is None or self._files.exists(ChunkFile(file.base, None)))

    def _base(self, previous: bytes) -> Base | None:
        """Read the base of the parent's chunk; None if it is damaged, so that nothing new is built on it."""
        try:
            file = self._reader.locate(previous)
            identity = file.base or previous
            content = self._reader.checked_full(identity)
            size = self._files.size(ChunkFile(identity, None))
            if file.base is None:
                return Base(identity, content, size, 0, {})
            delta = self._reader.delta(file)
        except ChunkDamageError as error:
            log.warning("%s; what changed in it is stored in full", error)
            if error.identity != previous:
                cause = f"its base is damaged: {error}"
                error = ChunkDamageError(previous, cause, error.evidence, error.identity)
            with self._lock:
                self._damaged.append(error if len(self._damaged) < FEW else error.without_evidence())
            return None
        return Base(identity, content, size, delta.spent + self._files.size(file), delta.pages)

    def _store_on(self, base: Base, identity: bytes, data: bytes, pages: list[int]) -> None:
        """Store a chunk as a delta, or in full once the deltas of its base have cost as much as a full one.

        An untrusted full file of the same id is replaced by a full one: it would be read in preference to a delta.
        """
        full = ChunkFile(identity, None)
        if len(pages) * PAGE_SIZE < len(data) and not self._files.exists(full):
            frame = self._codec.compress(encode_delta(make_delta(data, pages, base.spent)))
            if base.spent + len(frame) <= base.size:
                self._store(ChunkFile(identity, base.identity), frame)
                return
        self._store(full, self._codec.compress(data))

    def _store(self, file: ChunkFile, frame: bytes) -> None:
        """Put `frame` in place under its final name; what had that name, or its id on another base, is not trusted.

        It may be needed all the same, as the base of deltas or by a distrusted revision: it gives way only to what is
        on the disk.
        """
        path = self._files.path(file)
        stale = [other for other in self._files.deltas(file.identity) if other != file]
        replaces = bool(stale) or self._files.exists(file)
        temporary = f"{self._files.temporary}/{threading.get_native_id()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, READ_ONLY)
        try:
            with naming(path):
                write_all(descriptor, frame)
                if self._durability == "file" or replaces:
                    os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.rename(temporary, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
            os.rename(temporary, path)
        if stale:
            sync_folder(os.path.dirname(path))
            for other in stale:
                os.unlink(self._files.path(other))
        with self._lock:
            self._stored += len(frame)
            self._folders.add(os.path.dirname(path))
