"""Keeps the chunks that were read last, so that small reads need not fetch a whole chunk each time.

Its size in bytes is limited. All images share it.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from backy.system.parallel import keep_freed_memory, processor_count


class ChunkCache:
    """Reads chunks by a few threads and keeps the latest ones. Safe to use from several threads.

    It holds at most `limit` bytes, the chunks that are being read, and those that their readers have not taken yet.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        # Keyed by id, which stands for one content wherever it is stored: revisions and repositories share entries.
        self._chunks: OrderedDict[bytes, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()
        # It starts its threads with the first reads: before, a program may go to the background, where none survives.
        self._pool = ThreadPoolExecutor(processor_count(), thread_name_prefix="backy")
        keep_freed_memory()

    def stop(self) -> None:
        """End the threads and drop the reads that they have not begun."""
        self._pool.shutdown(cancel_futures=True)

    def get(self, chunk_id: bytes, read: Callable[[], bytes]) -> Future[bytes]:
        """Return the future of chunk `chunk_id`; call `read` in a thread unless the chunk is kept or being read."""
        with self._lock:
            future = self._chunks.get(chunk_id)
            if future is not None:
                self._chunks.move_to_end(chunk_id)
                return future
            future = self._chunks[chunk_id] = self._pool.submit(self._read, chunk_id, read)
        future.add_done_callback(self._account)
        return future

    def _read(self, chunk_id: bytes, read: Callable[[], bytes]) -> bytes:
        """Call `read`; forget the chunk if that fails."""
        try:
            return read()
        except BaseException:
            # The next one to ask may know of a sound copy, so only those who wait already get this failure.
            with self._lock:
                del self._chunks[chunk_id]
            raise

    def _account(self, future: Future[bytes]) -> None:
        """Count the size of a finished read, and drop the chunks that were not used for longest."""
        with self._lock:
            self._size += _size(future)
            for chunk_id, other in list(self._chunks.items()):
                if self._size <= self._limit:
                    break
                # A chunk that is still being read has no size yet, and somebody waits for it.
                if other.done():
                    self._size -= _size(other)
                    del self._chunks[chunk_id]


def _size(future: Future[bytes]) -> int:
    """Return the bytes that a finished future holds; 0 if it failed or was cancelled."""
    return 0 if future.cancelled() or future.exception() is not None else len(future.result())
