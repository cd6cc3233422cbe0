"""What is on the disk with the base directory: how full it is and soon will be, and copies of other machines."""

import os
from collections.abc import Container
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from backy.errors import BackyError
from backy.repository.config import CONFIG, load_job
from backy.scheduler.monitoring.status import DiskStatus, Sample
from backy.text.phrases import size

WEEK = timedelta(days=7)
STEP = timedelta(hours=6)
"""Pause between two samples that are kept."""


def look(base_dir: Path) -> DiskStatus:
    """Return the size of the disk and what is free; raises OSError."""
    found = os.statvfs(base_dir)
    # What is reserved for root belongs to neither: `df` says the same.
    total = found.f_blocks - found.f_bfree + found.f_bavail
    return DiskStatus(place=str(base_dir), size=total * found.f_frsize, free=found.f_bavail * found.f_frsize, growth=0)


def judged(present: DiskStatus, before: DiskStatus | None, now: datetime) -> DiskStatus:
    """Return the present status of a disk with what the status `before` adds: growth, and whether it is low.

    It is low if less is left than was taken within the last week, so that it may be full in another one.
    """
    # Of a disk with another size nothing is known, and samples that are ahead of the clock tell nothing of a week.
    known = before.samples if before and (before.place, before.size) == (present.place, present.size) else ()
    samples = [sample for sample in known if timedelta() <= now - sample.time <= WEEK]
    used = present.size - present.free
    growth = max(used - samples[0].used, 0) if samples else 0
    if not samples or now - samples[-1].time >= STEP:
        samples.append(Sample(now, used))
    since = (before.low_since if before else None) or now
    low = present.free < growth or not present.free
    return msgspec.structs.replace(present, growth=growth, low_since=since if low else None, samples=tuple(samples))


def shortage(disk: DiskStatus) -> str:
    """Return what is said of a disk that is low."""
    taken = f"of which {size(disk.growth)} more are used than a week ago" if disk.growth else "which is full"
    return f"{disk.place}: {size(disk.free)} left on the disk of {size(disk.size)}, {taken}"


def copies(base_dir: Path, jobs: Container[str]) -> tuple[str, ...]:
    """Return the names of the repositories without a source, sorted, except those of `jobs`; raises OSError.

    No job backs them up: they are copies of other machines.
    """
    with os.scandir(base_dir) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return tuple([name for name in names if name not in jobs and _is_copy(base_dir / name)])


def _is_copy(directory: Path) -> bool:
    # what can not be read counts as nothing, and a job would tell of it
    with suppress(BackyError, OSError):
        return load_job(directory / CONFIG).source is None
    return False
