"""Fills the gaps in Ceph's list of an image's data and holes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backy.api import Extent


def filled(extents: Iterable[Extent], start: int, stop: int) -> Iterator[Extent]:
    """Yield ascending extents, with a hole for each gap between `start` and `stop`."""
    # Ceph lists what was written or discarded and leaves out the rest.
    position = start
    for extent in extents:
        if extent.offset > position:
            yield Extent(position, extent.offset - position, data=False)
        position = max(position, extent.end)
        yield extent
    if position < stop:
        yield Extent(position, stop - position, data=False)
