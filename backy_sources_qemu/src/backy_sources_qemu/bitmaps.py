"""The dirty bitmaps of a job: QEMU notes in them what a machine writes after the backup that a bitmap is named for.

Each has a *mark* beside it, a bitmap that is switched off, and in which only the last block of the disk is set. Another
program that copies bitmaps to another image, as libvirt does for an external snapshot, copies no mark: such a bitmap
begins later than its name says. And a disk that is made smaller loses the mark, also if it grows again afterwards, of
which QEMU notes nothing.
"""

import logging
import re
from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

from backy.api import ID_PATTERN
from backy.errors import warned

log = logging.getLogger(__name__)
MARK: Final = ".mark"
"""What the name of a mark ends with."""
BLOCK: Final = 65536
"""Bytes of the block that is set in a mark."""


class Bitmap(NamedTuple):
    """A bitmap as QEMU describes it."""

    name: str
    fault: str | None
    """Why it tells nothing that can be relied upon; None if it does."""
    is_recording: bool
    is_empty: bool


class Base(NamedTuple):
    """A bitmap of a job that can be relied upon, and the size of the disk when it began."""

    name: str
    size: int

    @property
    def known(self) -> int:
        """Bytes at the begin of which it notes all: of the block at the end a part may have been cut off and added."""
        return max(self.size - 1, 0) // BLOCK * BLOCK


def bitmap_name(job_id: str, revision_id: str, size: int) -> str:
    """Return the name of the bitmap that begins with a revision of a disk of `size` bytes."""
    return f"backy.{job_id}.{revision_id}.{size}"


def remove_others(
    remove: Callable[[str], None], names: Iterable[str], job_id: str, revision_ids: Collection[str]
) -> None:
    """Remove of the bitmaps those that are a job's, or the mark of one, but not of these revisions. Log one that stays.

    The next backup tries it again.
    """
    for match in filter(None, map(_pattern(job_id).fullmatch, names)):
        if match[1] not in revision_ids:
            with warned(log, f"the bitmap {match[0]} stays until the next backup"):
                remove(match[0])


def _pattern(job_id: str) -> re.Pattern[str]:
    return re.compile(rf"backy\.{re.escape(job_id)}\.({ID_PATTERN.pattern})\.([0-9]{{1,20}})({re.escape(MARK)})?")


def _fault(bitmap: Bitmap, mark: Bitmap | None) -> str | None:
    if bitmap.fault:
        return bitmap.fault
    if not bitmap.is_recording:
        return "was stopped by another program"
    if mark is None or mark.is_recording:
        return "is a copy, as an external snapshot makes it, and has only what was written later"
    return mark.fault or ("lacks what the disk lost when it was made smaller" if mark.is_empty else None)


def base_of(what: str, bitmaps: Iterable[Bitmap], job_id: str, parent: str | None) -> Base | None:
    """Return the bitmap since a revision if it can be relied upon. Else log why all of the disk is read."""
    if parent is None:
        return None
    there = {bitmap.name: bitmap for bitmap in bitmaps}
    why = f"there is no bitmap since revision {parent}"
    for match in filter(None, map(_pattern(job_id).fullmatch, there)):
        if match[1] == parent and not match[3]:
            fault = _fault(there[match[0]], there.get(match[0] + MARK))
            if fault is None:
                return Base(match[0], int(match[2]))
            why = f"the bitmap since revision {parent} {fault}"
    log.warning("%s is read in full: %s", what, why)
    return None
