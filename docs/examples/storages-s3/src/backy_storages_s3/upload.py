"""Fills packs and puts them, while others are filled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from backy_storages_s3.packs import FOLDER, Pack
from backy_storages_s3.store import Store


class Uploads:
    """Packs of one kind, of a revision. Safe to use from several threads."""

    def __init__(self, store: Store, kind: str, size: int) -> None:
        self.names: dict[str, str] = {}
        """The names of packs that are complete, by what stood for them."""
        self.bytes = 0
        """What was put."""
        self._store = store
        self._size = size
        self._lock = threading.Lock()
        # one on its way and one that is filled: more would take more memory than they save time
        self._pool = ThreadPoolExecutor(1)
        self._on_way: Future[None] | None = None
        self._kind, self._begun = kind, 0
        self._pack = Pack(f"{kind} 0")

    def add(
        self, chunk_id: bytes, frame: bytes | memoryview, base: bytes | None, note: Callable[[str, int], None]
    ) -> None:
        """Add a chunk file, and call `note` with what stands for its pack, and with its offset there."""
        with self._lock:
            note(self._pack.label, self._pack.add(chunk_id, frame, base))
            if len(self._pack) >= self._size:
                self._send()

    def finish(self) -> None:
        """Put the last pack, and wait until all are there; raises what failed."""
        with self._lock:
            if len(self._pack):
                self._send()
            self._wait()

    def close(self) -> None:
        """Wait for what is on its way."""
        self._pool.shutdown()

    def _send(self) -> None:
        self._wait()
        self._on_way = self._pool.submit(self._put, self._pack)
        self._begun += 1
        self._pack = Pack(f"{self._kind} {self._begun}")

    def _wait(self) -> None:
        if self._on_way is not None:
            self._on_way.result()
            self._on_way = None

    def _put(self, pack: Pack) -> None:
        self._store.hold()
        name, content = pack.seal()
        self._store.objects.put(f"{FOLDER}/{name}", content)
        self.names[pack.label] = name
        self.bytes += len(content)
