"""Runs tests of plugins with a time limit, so that a plugin that hangs is a failed test and not an endless run."""

import os
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final, TypeVar

import pytest

Result = TypeVar("Result")
_HUNG: Final[list[threading.Thread]] = []


def within(seconds: float, function: Callable[[], Result]) -> Result:
    """Call `function` in a thread of its own and return its result, or raise what it raises.

    Raises:
        pytest.fail.Exception: it did not end in `seconds`; the text shows where all threads are.
    """
    ended: Future[Result] = Future()

    def run() -> None:
        try:
            ended.set_result(function())
        except BaseException as error:  # noqa: BLE001  # also what pytest raises to skip or fail a test
            ended.set_exception(error)

    # No signal interrupts a library that waits for another thread. A daemon can be left behind.
    thread = threading.Thread(target=run, name="test", daemon=True)
    thread.start()
    if wait([ended], seconds).done:
        return ended.result()
    _HUNG.append(thread)
    pytest.fail(f"it hangs: it did not end in {seconds:g} seconds\n{stacks(thread)}")


def stacks(first: threading.Thread) -> str:
    """Return where `first` and all other threads are, as text."""
    frames = sys._current_frames()  # noqa: SLF001  # there is no other way to see them
    threads = sorted(threading.enumerate(), key=lambda thread: thread is not first)
    found = [(thread.name, frames[thread.ident]) for thread in threads if thread.ident in frames]
    return "\n".join(f"thread {name}:\n{''.join(traceback.format_stack(frame))}" for name, frame in found)


def leave(status: int) -> None:
    """End the process with `status` if a test was left hanging; else return."""
    # Python waits for the threads of pools at its end, and those that hang would keep it for ever.
    if any(thread.is_alive() for thread in _HUNG):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
