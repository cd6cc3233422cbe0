"""Shows a scheduler that work goes on: writes a byte to its pipe now and then."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from backy.api import Progress
from backy.system.progress import HEARTBEAT, Steps


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
