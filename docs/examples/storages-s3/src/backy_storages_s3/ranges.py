"""Which bytes of packs to read at once: chunks that lie side by side, and that are wanted one soon after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backy_storages_chunked.codec import LARGEST_FRAME
from backy_storages_s3.index import NOWHERE, Index, Place

GAP = 64 * 2**10
"""Bytes between two parts that are read although nobody wants them: a request takes longer."""
LONGEST = 2 * LARGEST_FRAME
"""Bytes that are read at once: each thread may wait for as many."""
WINDOW = 256
"""Chunks of an image, without its holes, of which parts are joined: one gibibyte."""


def joined(places: Iterable[Place]) -> Iterator[Place]:
    """Yield ranges that together have all of `places`, in the order of packs and offsets."""
    last: Place | None = None
    for place in sorted(set(places)):
        if last and place.pack == last.pack and place.offset - last.end < GAP:
            end = max(last.end, place.end)
            if end - last.offset <= LONGEST:
                last = Place(last.pack, last.offset, end - last.offset)
                continue
        if last:
            yield last
        last = place
    if last:
        yield last


def needed(index: Index, rows: Iterable[int]) -> Iterator[Place]:
    """Yield the places of rows, and of the bases of deltas."""
    for row in rows:
        yield index.place(row)
        if (base := index.base(row)) != NOWHERE:
            yield index.place(base)


class Plan:
    """The ranges by which an image is read from its beginning to its end."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._window = -1
        self._ranges: dict[Place, Place] = {}

    def range_of(self, row: int, place: Place) -> Place:
        """Return the range in which `place` is read with row `row`, which needs it. Not safe with several threads."""
        window = row // WINDOW
        if window != self._window:
            self._window, self._ranges = window, self._made(window)
        return self._ranges.get(place, place)

    def _made(self, window: int) -> dict[Place, Place]:
        rows = range(window * WINDOW, min((window + 1) * WINDOW, self._index.placed))
        places = sorted(set(needed(self._index, rows)))
        ranges = joined(places)
        found, current = {}, next(ranges, None)
        for place in places:
            # both are in the same order
            while current and not (current.pack == place.pack and current.offset <= place.offset < current.end):
                current = next(ranges, None)
            if current:
                found[place] = current
        return found
