"""Limits for code that reads data of a hostile guest: whatever the data, the command ends with one line."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from backy.errors import BackyError

Result = TypeVar("Result")
# A thousand times the time of the largest honest structure.
_SECONDS = 20
"""Most seconds of processor time without progress."""
# Much of it is reserved and never used.
_MEMORY = 4 * 2**30
"""Most bytes of address space."""


class GuestError(BackyError):
    """Data of a guest can not be read."""


@contextmanager
def limits() -> Iterator[None]:
    """Limit processor time without progress, and memory, while the context lasts. Use it in the main thread only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGVTALRM, _too_long)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard), hard))
    try:
        progress()
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def progress() -> None:
    """Start the time anew, because there was progress. Without limits, do nothing."""
    if signal.getsignal(signal.SIGVTALRM) is _too_long:
        signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)


def guarded(what: str, function: Callable[[], Result]) -> Result:
    """Call a function that reads a guest's structures; raise its unexpected errors as GuestError."""
    try:
        return function()
    except BackyError:
        raise
    # The libraries raise errors of any kind for wrong structures.
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise GuestError(f"{what} can not be read: it is damaged, or of a kind that is not known ({cause})") from error


def guarded_items(what: str, function: Callable[[], Iterable[Result]]) -> Iterator[Result]:
    """Yield the items of `function` as `guarded` does; each item counts as progress."""
    iterator = guarded(what, lambda: iter(function()))
    while True:
        try:
            item = guarded(what, lambda: next(iterator, None))
        finally:
            progress()
        if item is None:
            return
        yield item


def _too_long(_number: int, _frame: object) -> None:
    raise GuestError("what the guest has written leads in circles: nothing came of it for a long time")
