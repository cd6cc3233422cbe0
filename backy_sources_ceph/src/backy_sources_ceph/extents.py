"""Putting in order what Ceph tells of an image's data and holes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backy.api import Extent


def filled(extents: Iterable[Extent], start: int, stop: int) -> Iterator[Extent]:
    """Hand on ascending extents, with a hole wherever they leave a gap between `start` and `stop`."""
    position = start
    for extent in extents:
        if extent.offset > position:
            yield Extent(position, extent.offset - position, data=False)
        position = max(position, extent.end)
        yield extent
    if position < stop:
        yield Extent(position, stop - position, data=False)
