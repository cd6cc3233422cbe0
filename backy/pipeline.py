"""Work on chunks by a small pool of threads; memory is bounded by the pool, never by the image.

Reading, hashing, compressing and writing all release the interpreter lock, so one thread takes a chunk from its first
byte to its last and there are no stages to balance.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def thread_count() -> int:
    """Return how many threads to use: one a processor that this process may run on, two at least, eight at most."""
    return min(max(len(os.sched_getaffinity(0)), 2), 8)


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield `function(item)` for every item, in order, computed by several threads.

    At most two results a thread are in flight or waiting to be taken, so a slow consumer holds the threads back. The
    first exception, of a call or of the consumer, ends everything: calls not begun are dropped, running ones awaited.
    """
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
