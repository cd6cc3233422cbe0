"""Joins extents. Plugins may use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backy.api import Extent


def joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join extents of one kind, data or holes, that follow each other without a gap."""
    # One extent is held back, because the next one may continue it.
    last: Extent | None = None
    for extent in extents:
        if last is not None and last.end == extent.offset and last.data == extent.data:
            last = last._replace(length=last.length + extent.length)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last
