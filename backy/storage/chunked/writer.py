"""Writing chunks: each content once, under its id, first under a temporary name."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Container
from typing import Literal, NamedTuple

from backy.api import PAGE_SIZE, Stored
from backy.durable import READ_ONLY, naming, pwrite_all, sync_file_system, sync_folder
from backy.errors import MOST_FINDINGS, ChunkDamageError
from backy.image.chunkmap import checked
from backy.image.pages import differing_pages, runs
from backy.storage.chunked.codec import Codec, apply_delta, encode_delta, make_delta
from backy.storage.chunked.files import ChunkFile, ChunkFiles
from backy.storage.chunked.reader import ChunkReader
from backy.system.direct import DirectWriter, switched

log = logging.getLogger(__name__)
Durability = Literal["none", "filesystem", "file"]


class Origin(NamedTuple):
    """A chunk that something new can be told as a difference from."""

    file: ChunkFile
    content: bytes
    size: int
    """Bytes of its file."""
    spent: int
    """Bytes of the deltas made of it so far, along the chunk's history."""


class Parent(NamedTuple):
    """The chunk of the parent revision, and what it is made of."""

    content: bytes
    base: Origin
    companion: Origin | None
    """A delta of the base whose pages a new delta may take over."""


class ChunkWriter:
    """A new revision on its way into the chunk store. Safe to use from several threads."""

    def __init__(self, files: ChunkFiles, codec: Codec, durability: Durability, referenced: Container[bytes]) -> None:
        self._files = files
        self._codec = codec
        self._durability = durability
        self._referenced = referenced
        self._reader = ChunkReader(files, codec)
        self._direct = DirectWriter()
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

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        """Store a chunk unless it is known to be stored; return how many of its bytes the parent's chunk lacks."""
        with self._lock:
            if chunk_id in self._claimed:
                return len(data)
            self._claimed.add(chunk_id)
        if chunk_id in self._referenced and self._is_stored(chunk_id):
            return len(data)
        parent = None if previous is None else self._parent(previous)
        if parent is None:
            self._store(ChunkFile(chunk_id), self._codec.compress(data))
            return len(data)
        self._store_difference(parent, chunk_id, data)
        return sum(length for _, length in runs(differing_pages(data, parent.content), len(data)))

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

    def _is_stored(self, chunk_id: bytes) -> bool:
        """Tell whether the files of a referenced chunk are there; that they are whole is known."""
        file = self._files.find(chunk_id)
        return file is not None and all(self._files.exists(other) for other in file.made_of)

    def _parent(self, previous: bytes) -> Parent | None:
        """Read the parent's chunk; None if it is damaged, so that nothing new is made of it."""
        try:
            return self._read_parent(self._reader.locate(previous))
        except ChunkDamageError as error:
            log.warning("%s; what changed in it is stored in full", error)
            if error.chunk_id != previous:
                cause = f"it is made of a damaged one: {error}"
                error = ChunkDamageError(previous, cause, error.evidence, error.chunk_id)
            with self._lock:
                self._damaged.append(error if len(self._damaged) < MOST_FINDINGS else error.without_evidence())
            return None

    def _read_parent(self, file: ChunkFile) -> Parent:
        """Read a chunk and what it is made of; all that a new delta may be made of is compared with its id."""
        full = ChunkFile(file.base or file.chunk_id)
        content = self._reader.checked_full(full.chunk_id)
        size = self._files.size(full)
        if file.base is None:
            return Parent(content, Origin(full, content, size, 0), None)
        plain = file if file.companion is None else file.made_of[-1]
        delta = self._reader.delta(plain)
        lent = checked(plain.chunk_id, apply_delta(delta, content))
        lent_size = self._files.size(plain)
        spent = delta.spent + lent_size
        if file.companion is None:
            return Parent(lent, Origin(full, content, size, spent), Origin(plain, lent, lent_size, 0))
        own = self._reader.delta(file)
        own_spent = own.spent + self._files.size(file)
        base = Origin(full, content, size, spent + own_spent)
        return Parent(apply_delta(own, lent), base, Origin(plain, lent, lent_size, own_spent))

    def _store_difference(self, parent: Parent, chunk_id: bytes, data: bytes) -> None:
        """Store a chunk as a delta, or in full once the deltas of its base have cost as much as a full one.

        A delta takes over the pages of its companion until that has saved what a delta without one costs. Whatever has
        this id already is not trusted: a full chunk is read in preference to it.
        """
        there = self._files.find(chunk_id)
        known = [parent.base.file] if parent.companion is None else [parent.base.file, parent.companion.file]
        if there in known:
            return
        for origin in [parent.companion, parent.base] if there is None else []:
            if origin is None:
                continue
            companion = origin.file.chunk_id if origin.file.base is not None else None
            frame = self._difference(origin, data)
            if (
                frame is not None
                and origin.spent + len(frame) <= origin.size
                and parent.base.spent + len(frame) <= parent.base.size
            ):
                self._store(ChunkFile(chunk_id, parent.base.file.chunk_id, companion), frame)
                return
        self._store(ChunkFile(chunk_id), self._codec.compress(data))

    def _difference(self, origin: Origin, data: bytes) -> bytes | None:
        """Return the frame of a delta made of `origin`; None if every page differs."""
        pages = differing_pages(data, origin.content)
        if len(pages) * PAGE_SIZE >= len(data):
            return None
        return self._codec.compress(encode_delta(make_delta(data, pages, origin.spent)))

    def _write(self, descriptor: int, frame: bytes) -> None:
        """Write a new file: past the cache, if it is to be on the disk at the end anyway."""
        if self._durability == "none":
            pwrite_all(descriptor, frame, 0)
            return
        with switched(descriptor) as direct:
            written = self._direct.pwrite(direct, frame, 0)
        pwrite_all(descriptor, memoryview(frame)[written:], written)

    def _store(self, file: ChunkFile, frame: bytes) -> None:
        """Put `frame` in place under its final name; a file that has this id already is not trusted.

        It may be needed all the same, as the base of deltas or by a distrusted revision: it gives way, be it that a
        full chunk is read in preference to it, only to what is on the disk.
        """
        path = self._files.path(file)
        replaces = self._files.find(file.chunk_id) is not None
        temporary = f"{self._files.temporary}/{threading.get_native_id()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, READ_ONLY)
        try:
            with naming(path):
                self._write(descriptor, frame)
                if self._durability == "file" or replaces:
                    os.fsync(descriptor)
                elif self._durability == "filesystem":
                    # begins to write it to the disk, so that the sync at the end finds little left to wait for
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        try:
            os.rename(temporary, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
            os.rename(temporary, path)
        with self._lock:
            self._stored += len(frame)
            self._folders.add(os.path.dirname(path))
