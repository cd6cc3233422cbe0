"""Time that is made up: the event loop does not wait but lets it pass, so that a year takes a minute."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Machine:
    """A server with its clocks."""

    def __init__(self) -> None:
        self.now = BEGIN
        """What time it is."""
        self.wrong = timedelta()
        """How much the clock is ahead, or less than zero if it is behind."""
        self.boot = 0
        self.up = 0.0
        """Seconds since its start, which nobody can set."""
        self.worked = timedelta()
        """How long it was on, and not paused."""
        self.undone = timedelta()
        """How much of that was undone when it was put back to a snapshot."""

    def clock(self) -> datetime:
        return self.now + self.wrong

    def work(self, time: timedelta) -> None:
        self.now += time
        self.worked += time
        self.up += time.total_seconds()

    def set_clock(self, to: datetime) -> None:
        self.wrong = to - self.now

    def restart(self, off: timedelta = MINUTE, clock: datetime | None = None) -> None:
        """Be off for a while. Afterwards the clock is as right as before, or says something else."""
        self.now += off
        self.boot, self.up = self.boot + 1, 0.0
        if clock:
            self.set_clock(clock)

    def pause(self, time: timedelta) -> None:
        """Stand still as a virtual machine does, which notices nothing of it."""
        self.now += time
        self.wrong -= time


class Passing(selectors.DefaultSelector):
    """Lets the time pass that a loop would have to wait."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for ever"
            # less than what a timedelta can tell would let nothing pass
            self.machine.work(timedelta(seconds=max(timeout, 1e-6)))
        return ready


class Loop(asyncio.SelectorEventLoop):
    """A loop by the time of a machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(Passing(machine))
        self.machine = machine

    def time(self) -> float:
        return self.machine.worked.total_seconds()


class NoThread:
    """Does at once what a thread would do meanwhile."""

    def __init__(self, target: Callable[[], None], daemon: bool) -> None:
        self.start = target
