"""What thin_delta tells of the blocks of two thin volumes, turned into extents.

It prints XML, with numbers that count blocks of the pool. A large volume has millions of lines, so nothing here holds
more than a few of them.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, Literal, NamedTuple
from xml.parsers.expat import ExpatError, ParserCreate

from backy.api import Extent
from backy.extents import joined

_SECTOR: Final = 512
Kind = Literal["same", "changed", "gone"]
"""What became of blocks: as in the earlier snapshot, written since then, or discarded since then."""
_KINDS: Final[dict[str, Kind]] = {
    "same": "same",
    "different": "changed",
    "right_only": "changed",
    "left_only": "gone",
}


class Run(NamedTuple):
    """Bytes of a volume of which the same is true. Where there is none, nothing is mapped, nor was."""

    start: int
    end: int
    kind: Kind


def parse_runs(pieces: Iterable[bytes]) -> Iterator[Run]:
    """Read what thin_delta printed.

    Raises:
        ValueError: it is cut off, is something else, or blocks are out of order.
    """
    block = position = 0
    is_complete = False
    for tag, attributes in _elements(pieces):
        if attributes is None:
            is_complete |= tag == "diff"
        elif tag == "superblock":
            block = _whole(tag, attributes, "data_block_size") * _SECTOR
        elif tag in _KINDS:
            start, length = (_whole(tag, attributes, key) * block for key in ("begin", "length"))
            if start < position or not length:
                raise ValueError(f"{length} bytes at {start} follow what ends at {position}")
            position = start + length
            yield Run(start, position, _KINDS[tag])
    if not is_complete:
        raise ValueError("it tells of no volume")


def _elements(pieces: Iterable[bytes]) -> Iterator[tuple[str, dict[str, str] | None]]:
    """Yield each element of a text as it begins, with its attributes, and as it ends, with None."""
    found: list[tuple[str, dict[str, str] | None]] = []
    # no tree of elements is made, which would be as large as the text
    parser = ParserCreate()
    parser.StartElementHandler = lambda tag, attributes: found.append((tag, attributes))
    parser.EndElementHandler = lambda tag: found.append((tag, None))
    for piece in chain(pieces, [None]):
        try:
            parser.Parse(piece or b"", piece is None)
        except ExpatError as error:
            raise ValueError(f"it is cut off or no XML: {error}") from error
        yield from found
        found.clear()


def _whole(tag: str, attributes: dict[str, str], key: str) -> int:
    number = attributes.get(key, "")
    if not (number.isascii() and number.isdecimal()):
        raise ValueError(f"{tag} has no number {key}")
    return int(number)


class Stretch(NamedTuple):
    """An extent of a volume, and whether it was changed since the earlier snapshot."""

    extent: Extent
    changed: bool


def stretches(runs: Iterable[Run], size: int, *, holes: bool) -> Iterator[Stretch]:
    """Yield what is between 0 and `size` without gaps.

    Args:
        runs: What is known of the blocks.
        size: Bytes of the volume. Blocks may be mapped beyond it, in part or as a whole.
        holes: Whether what is not mapped reads as zeroes. It does not if the volume has an external origin.
    """
    position = 0
    for run in runs:
        start, end = min(run.start, size), min(run.end, size)
        if start > position:
            yield Stretch(Extent(position, start - position, data=not holes), changed=False)
        if end > start:
            is_data = run.kind != "gone" or not holes
            yield Stretch(Extent(start, end - start, data=is_data), changed=run.kind != "same")
        position = max(position, end)
    if position < size:
        yield Stretch(Extent(position, size - position, data=not holes), changed=False)


def extents(found: Iterable[Stretch]) -> Iterator[Extent]:
    """Yield data and holes of a volume."""
    return joined(stretch.extent for stretch in found)


def changes(found: Iterable[Stretch], earlier: int) -> Iterator[Extent]:
    """Yield what differs from a snapshot that had `earlier` bytes. Everything beyond its end does."""
    return joined(_changes(found, earlier))


def _changes(found: Iterable[Stretch], earlier: int) -> Iterator[Extent]:
    for extent, changed in found:
        if changed:
            yield extent
        elif extent.end > earlier:
            start = max(extent.offset, earlier)
            yield Extent(start, extent.end - start, data=extent.data)
