"""A clock for tests, so that no test waits for time to pass."""

from datetime import UTC, datetime, timedelta


class Clock:
    """A clock that advances by `step` at each call."""

    # It advances by itself, so that two events never have the same time.
    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC), step: timedelta = timedelta(hours=1)) -> None:
        self.now = now
        self.step = step

    def __call__(self) -> datetime:
        """Advance the clock and return its time in UTC."""
        self.now += self.step
        return self.now
