"""Writing chunks: each content once, under its id, first under a temporary name."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Container

from backy.durable import READ_ONLY, sync_file_system, write_all
from backy.storage.chunked.codec import Codec
from backy.storage.chunked.files import ChunkFile, ChunkFiles
from backy.storage.chunked.reader import ChunkReader

log = logging.getLogger(__name__)


class ChunkWriter:
    """A new revision on its way into the chunk store. Safe to use from several threads."""

    def __init__(self, files: ChunkFiles, codec: Codec, referenced: Container[bytes]) -> None:
        self._files = files
        self._codec = codec
        self._reader = ChunkReader(files, codec)
        self._referenced = referenced
        self._lock = threading.Lock()
        self._claimed: set[bytes] = set()
        self._stored = 0
        # opened before the first write: syncfs reports the errors since then
        self._folder = os.open(files.directory, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._folder)

    def write(self, index: int, identity: bytes, data: bytes, previous: bytes | None) -> int:
        """Store a chunk unless it is known to be stored; return how many of its bytes the parent's chunk lacks."""
        with self._lock:
            if identity in self._claimed:
                return len(data)
            self._claimed.add(identity)
        if identity in self._referenced and self._files.find(identity) is not None:
            return len(data)
        self._store(ChunkFile(identity, None), self._codec.compress(data))
        return len(data)

    def zero(self, index: int) -> None:
        """Zero chunks are no files."""

    def commit(self) -> int:
        """Bring all to the disk and return the bytes stored."""
        sync_file_system(self._folder)
        return self._stored

    def _store(self, file: ChunkFile, frame: bytes) -> None:
        """Put `frame` in place under its final name; what has that name already is not trusted and is replaced."""
        temporary = os.path.join(self._files.temporary, f"{threading.get_native_id()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, READ_ONLY)
        try:
            write_all(descriptor, frame)
        finally:
            os.close(descriptor)
        path = self._files.path(file)
        try:
            os.rename(temporary, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
            os.rename(temporary, path)
        with self._lock:
            self._stored += len(frame)
