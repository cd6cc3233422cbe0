"""The clocks of a machine: the one that anybody can set, and the one that counts from its start."""

import time
from datetime import datetime
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
