"""Works on chunks by a small pool of threads. Memory depends on the number of threads, not on the size of the image."""

import ctypes
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from backy.contract.images import CHUNK_SIZE  # not by way of backy.api, as in backy.image.stored

Item = TypeVar("Item")
Result = TypeVar("Result")


def processor_count() -> int:
    """Return the number of processors that this process may run on: at least two, at most eight."""
    return min(max(len(os.sched_getaffinity(0)), 2), 8)


def thread_count() -> int:
    """Return the number of threads to use: two for each processor, at most eight."""
    # Two, because half of them may wait for a disk.
    return min(2 * len(os.sched_getaffinity(0)), 8)


def keep_freed_memory() -> None:
    """Make the C library keep the memory of freed chunks for the next ones.

    Does nothing if the C library has no mallopt(3).
    """
    # Otherwise every chunk that is read or compressed costs a thousand page faults: a third of a backup's time.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-1, 64 * CHUNK_SIZE)  # M_TRIM_THRESHOLD
        mallopt(-3, 8 * CHUNK_SIZE)  # M_MMAP_THRESHOLD


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> Generator[Result, None, None]:
    """Yield `function(item)` for every item, in order, computed by several threads.

    Args:
        function: Called from any of the threads.
        items: The items; one thread at a time asks for the next one.
        threads: How many; None for the number that suits this machine.

    The first exception ends everything, in a call or in the consumer: calls that have not begun are dropped, and
    running ones are awaited.
    """
    # One thread takes a chunk from its first byte to its last: reading, hashing, compressing and writing all release
    # the interpreter lock, so there are no stages to balance.
    keep_freed_memory()
    threads = threads or thread_count()
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="backy") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                # Two for each thread at most, so that a slow consumer does not fill the memory.
                if len(pending) >= 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
