"""The times at which the tags of a schedule have runs: one interval apart, shifted by the job's spread. All are UTC.

`backy.scheduler.jobs.due` decides by them when a job is due.
"""

import hashlib
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from backy.repository.config import ScheduledTag

EPOCH = datetime(1, 1, 1, tzinfo=UTC)
"""Intervals are counted from here, so a week begins at no day in particular."""

Schedule = Mapping[str, ScheduledTag]
"""The tags of a job, at least one."""


def spread(job: str, schedule: Schedule) -> timedelta:
    """Return the shift of a job's runs in whole seconds, at most its longest interval; as in backy 2."""
    # the name alone decides: so the load is spread over the day without configuration, and a restart changes nothing
    seed = int(hashlib.md5(job.encode(), usedforsecurity=False).hexdigest(), 16)
    longest = int(max(tag.interval for tag in schedule.values()).total_seconds())
    return timedelta(seconds=random.Random(seed).randint(0, longest))  # noqa: S311  # no secret: it has to be the same in each process


def next_ideal(interval: timedelta, shift: timedelta, now: datetime) -> datetime:
    """Return the start of a tag's next run, strictly after `now`; `shift` is the job's spread."""
    return now + interval - (now - EPOCH - shift) % interval
