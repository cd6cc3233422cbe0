"""What `backy check` says of a made-up status."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from backy.scheduler.monitoring import check
from backy.scheduler.monitoring.check import Recorded
from backy.scheduler.monitoring.status import Status

FILE = Path("/srv/backy/status")


def judge(status: Status, age: timedelta, silence: str | None = None) -> check.Verdict:
    """Return the verdict on a status file of this age, whose scheduler answers unless `silence` tells why not."""
    now = status.written + age
    return check.judge(Recorded(FILE, status.at(now), status.written, now, silence))
