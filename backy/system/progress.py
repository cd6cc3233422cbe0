"""The form in which long work reports its progress."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from backy.api import Progress

HEARTBEAT: Final = "BACKY_HEARTBEAT"
"""Environment variable with the descriptor of a pipe that gets a byte, once a second at most, while work goes on."""

Steps = Callable[[str, int], Progress]
"""Called when a step begins, with its name and total bytes. Returns the function to call with the bytes done."""


def quiet(step: str, total: int) -> Progress:
    """Report no progress."""
    # Used where nobody watches: by tests, and by plugins that show none.
    return lambda _length: None


def heartbeat() -> int | None:
    """Return the descriptor of the pipe that a scheduler watches this process by; None if there is no such pipe."""
    # Taken away, as a program that this one starts has another file under the number.
    value = os.environ.pop(HEARTBEAT, "")
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(int(value)).st_mode)
    except (ValueError, OSError):
        return None
    if not is_pipe:
        return None
    os.set_inheritable(int(value), False)
    os.set_blocking(int(value), False)
    return int(value)


def beating(steps: Steps, descriptor: int, monotonic: Callable[[], float] = time.monotonic) -> Steps:
    """Return `steps` that also write a byte to `descriptor` when bytes are done, once a second at most."""
    last = 0.0

    def beat() -> None:
        nonlocal last
        # Several threads may be here at once: then there is a byte more, which does not matter.
        if (now := monotonic()) >= last + 1:
            last = now
            with suppress(OSError):  # nobody reads it, or not yet
                os.write(descriptor, b".")

    def step(name: str, total: int) -> Progress:
        told = steps(name, total)
        beat()

        def done(length: int) -> None:
            told(length)
            beat()

        return done

    return step
