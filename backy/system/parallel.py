"""Work on chunks by a small pool of threads; memory is bounded by the pool, never by the image.

Reading, hashing, compressing and writing all release the interpreter lock, so one thread takes a chunk from its first
byte to its last and there are no stages to balance.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from backy.api import CHUNK_SIZE

Item = TypeVar("Item")
Result = TypeVar("Result")


def processor_count() -> int:
    """Return how many processors this process may run on; two at least and eight at most."""
    return min(max(len(os.sched_getaffinity(0)), 2), 8)


def thread_count() -> int:
    """Return how many threads to use: two a processor, for half of them may wait for a disk, and eight at most."""
    return min(2 * len(os.sched_getaffinity(0)), 8)


def keep_freed_memory() -> None:
    """Let the C library keep the memory of a few freed chunks for the next ones instead of giving it back each time.

    Otherwise every chunk that is read or compressed costs a thousand page faults, a third of a backup's time. The
    numbers are M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3); a C library without it does as it likes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-1, 64 * CHUNK_SIZE)
        mallopt(-3, 8 * CHUNK_SIZE)


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield `function(item)` for every item, in order, computed by several threads.

    At most two results a thread are in flight or waiting to be taken, so a slow consumer holds the threads back. The
    first exception, of a call or of the consumer, ends everything: calls not begun are dropped, running ones awaited.
    """
    keep_freed_memory()
    threads = thread_count()
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="backy") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
