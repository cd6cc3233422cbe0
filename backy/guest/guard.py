"""Limits for code that reads what a hostile guest may have written: it ends in one line, whatever that is."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from backy.errors import BackyError

Result = TypeVar("Result")
_SECONDS = 20
"""Of the processor, without any progress: a thousand times what the largest honest structure takes."""
_MEMORY = 4 * 2**30
"""Bytes of address space, most of which is never touched."""


class GuestError(BackyError):
    """What a guest has written can not be read."""


@contextmanager
def limits() -> Iterator[None]:
    """Bound processor time without progress, and memory. For the main thread only."""
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
    """Note that something was achieved: the time begins anew, unless nothing is bounded any more."""
    if signal.getsignal(signal.SIGVTALRM) is _too_long:
        signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)


def guarded(what: str, function: Callable[[], Result]) -> Result:
    """Call what reads a guest's structures; anything that it does not expect in them becomes a GuestError."""
    try:
        return function()
    except BackyError:
        raise
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise GuestError(f"{what} can not be read: it is damaged, or of a kind that is not known ({cause})") from error


def guarded_items(what: str, function: Callable[[], Iterable[Result]]) -> Iterator[Result]:
    """Yield what `function` yields, with the same care, and as progress."""
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
