"""Chunks that were read lately, for those who read a chunk in small pieces: bounded by bytes, shared by all images."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from backy.system.parallel import keep_freed_memory, processor_count


class ChunkCache:
    """Reads chunks by a few threads and keeps the latest ones. Safe to use from several threads.

    An id stands for one content wherever it is stored, so that revisions and repositories share what they have in
    common. Chunks that are asked for while they are being read are read once. Beside `limit` bytes there are, at most,
    the chunks that threads are busy with or that their readers have not taken yet.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._chunks: OrderedDict[bytes, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Start the threads: not before a program that goes to the background has done so."""
        keep_freed_memory()
        self._pool = ThreadPoolExecutor(processor_count(), thread_name_prefix="backy")

    def stop(self) -> None:
        """End the threads; what they have not begun is dropped."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def get(self, chunk_id: bytes, read: Callable[[], bytes]) -> Future[bytes]:
        """Return chunk `chunk_id` as it is or will be; `read` is called unless it is kept or being read."""
        with self._lock:
            future = self._chunks.get(chunk_id)
            if future is not None:
                self._chunks.move_to_end(chunk_id)
                return future
            if self._pool is None:
                raise RuntimeError("the cache is not started")
            future = self._chunks[chunk_id] = self._pool.submit(self._read, chunk_id, read)
        future.add_done_callback(self._account)
        return future

    def _read(self, chunk_id: bytes, read: Callable[[], bytes]) -> bytes:
        """Read a chunk; a failure is for those who wait for it only: the next to ask may know of a sound copy."""
        try:
            return read()
        except BaseException:
            with self._lock:
                del self._chunks[chunk_id]
            raise

    def _account(self, future: Future[bytes]) -> None:
        """Count a chunk that was read, and drop those that were not used for longest."""
        with self._lock:
            self._size += _size(future)
            for chunk_id, other in list(self._chunks.items()):
                if self._size <= self._limit:
                    break
                if other.done():
                    self._size -= _size(other)
                    del self._chunks[chunk_id]


def _size(future: Future[bytes]) -> int:
    """Return how many bytes a finished future holds."""
    return 0 if future.cancelled() or future.exception() is not None else len(future.result())
