"""The dirty bitmaps of a job: QEMU notes in them what a machine writes after the backup that a bitmap is named for."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import NamedTuple

from backy.api import ID_PATTERN

log = logging.getLogger(__name__)


class Bitmap(NamedTuple):
    """A bitmap as QEMU describes it."""

    name: str
    fault: str | None
    """Why it tells nothing that can be relied upon; None if it does."""


class Kept(NamedTuple):
    """A bitmap of a job: the revision since which it notes what is written, and the size of the disk at that time."""

    name: str
    revision_id: str
    size: int
    fault: str | None


def bitmap_name(job_id: str, revision_id: str, size: int) -> str:
    """Return the name of the bitmap that begins with a revision of a disk of `size` bytes."""
    return f"backy.{job_id}.{revision_id}.{size}"


def kept(bitmaps: Iterable[Bitmap], job_id: str) -> list[Kept]:
    """Return the bitmaps of a job."""
    pattern = re.compile(rf"backy\.{re.escape(job_id)}\.({ID_PATTERN.pattern})\.([0-9]{{1,20}})")
    matches = ((pattern.fullmatch(bitmap.name), bitmap) for bitmap in bitmaps)
    return [Kept(bitmap.name, match[1], int(match[2]), bitmap.fault) for match, bitmap in matches if match]


def since(found: Iterable[Kept], parent: str) -> tuple[Kept | None, str]:
    """Return the bitmap of a revision if it can be relied upon, or None and why it can not."""
    own = next((one for one in found if one.revision_id == parent), None)
    if own is None:
        return None, f"there is no bitmap since revision {parent}"
    return (None, f"the bitmap since revision {parent} {own.fault}") if own.fault else (own, "")


def base_of(what: str, found: list[Kept], parent: str | None) -> Kept | None:
    """Return the bitmap since a revision. Log why all of the disk is read if it can not be relied upon."""
    if parent is None:
        return None
    base, why = since(found, parent)
    if base is None:
        log.warning("%s is read in full: %s", what, why)
    return base
