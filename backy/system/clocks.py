"""The clocks of a machine: the one that anybody can set, and the one that counts from its start; and both together."""

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple


class Instant(NamedTuple):
    """A time by the clocks of a machine."""

    wall: datetime
    """Time by the clock that anybody can set, UTC."""
    boot: str | None
    """Boot id; None if the time is not of a machine's clocks."""
    boottime: float | None
    """Seconds since the machine was started, those included in which it slept (CLOCK_BOOTTIME)."""


def boot_id() -> str:
    """Return the id of the time since this machine was started (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def boottime() -> float:
    """Return the seconds since this machine was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def present(wall: datetime) -> Instant:
    """Return the time `wall` as one of this machine's clocks."""
    return Instant(wall, boot_id(), boottime())


def trusted_time(before: Instant, trusted: datetime, now: Instant, allowance: timedelta) -> datetime:
    """Return the time `now`, counted on from the trusted time of an earlier backup. It never goes back.

    Args:
        before: The time of the earlier backup by its machine's clocks.
        trusted: The trusted time of the earlier backup.
        now: The present time.
        allowance: The longest time that is believed where the machine was started in between.
    """
    if before.boot is not None and before.boot == now.boot and before.boottime is not None and now.boottime is not None:
        # nobody can set this clock, so a jump of the other one counts for nothing
        allowance = timedelta(seconds=now.boottime - before.boottime)
    return trusted + max(min(now.wall - before.wall, allowance), timedelta())
