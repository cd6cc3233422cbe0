"""Notices when somebody sets the clock."""

from collections.abc import Callable
from datetime import datetime, timedelta

from backy.system.clocks import boottime

SMALLEST = timedelta(seconds=1)
"""Smaller jumps are those of a clock that is being adjusted, and harm nobody."""


class ClockWatch:
    """Compares the clock that anybody can set with one that nobody can."""

    def __init__(self, clock: Callable[[], datetime], boottime: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._boottime = boottime
        self._began = boottime()
        self._offset = self._now()

    @property
    def watched(self) -> timedelta:
        """How long the clock has been watched, by the other one."""
        return timedelta(seconds=self._boottime() - self._began)

    def jump(self) -> timedelta:
        """Return by how much the clock was set forward since the last call, less than zero if back."""
        before, self._offset = self._offset, self._now()
        jump = self._offset - before
        return timedelta(seconds=round(jump.total_seconds())) if abs(jump) >= SMALLEST else timedelta()

    def _now(self) -> datetime:
        # the start of the machine by the clock: it changes only if the clock is set
        return self._clock() - timedelta(seconds=self._boottime())
