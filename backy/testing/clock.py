"""A clock for tests: no test waits for time to pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Clock:
    """A clock that goes on by `step` whenever it is looked at."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC), step: timedelta = timedelta(hours=1)) -> None:
        self.now = now
        self.step = step

    def __call__(self) -> datetime:
        """Go on, and return the time in UTC."""
        self.now += self.step
        return self.now
