"""Fills packs and puts them, while others are filled."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from backy_storages_s3.packs import FOLDER, Pack
from backy_storages_s3.store import Store

_AT_ONCE = 2


class Uploads:
    """Packs of one kind, of a revision. Safe to use from several threads."""

    def __init__(self, store: Store, kind: str, size: int) -> None:
        self.names: dict[str, str] = {}
        """The names of packs that are complete, by what stood for them."""
        self.bytes = 0
        """What was put."""
        self._store = store
        self._size = size
        self._lock, self._counting = threading.Lock(), threading.Lock()
        # on their way while one is filled: more would take more memory than they save time
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._on_way: deque[Future[None]] = deque()
        self._kind, self._begun = kind, 0
        self._pack = Pack(f"{kind} 0", size)

    def add(
        self, chunk_id: bytes, frame: bytes | memoryview, base: bytes | None, note: Callable[[str, int], None]
    ) -> None:
        """Add a chunk file, and call `note` with what stands for its pack, and with its offset there."""
        with self._lock:
            note(self._pack.label, self._pack.add(chunk_id, frame, base))
            if self._pack.is_full:
                self._send()

    def finish(self) -> None:
        """Put the last pack, and wait until all are there; raises what failed."""
        with self._lock:
            if len(self._pack):
                self._send()
            self._wait(0)

    def close(self) -> None:
        """Wait for what is on its way."""
        self._pool.shutdown()

    def _send(self) -> None:
        self._wait(_AT_ONCE - 1)
        self._on_way.append(self._pool.submit(self._put, self._pack))
        self._begun += 1
        self._pack = Pack(f"{self._kind} {self._begun}", self._size)

    def _wait(self, most: int) -> None:
        """Wait until no more than so many are on their way."""
        while len(self._on_way) > most:
            self._on_way.popleft().result()

    def _put(self, pack: Pack) -> None:
        self._store.hold()
        name, content = pack.seal()
        self._store.objects.put(f"{FOLDER}/{name}", content)
        with self._counting:
            self.names[pack.label] = name
            self.bytes += len(content)
