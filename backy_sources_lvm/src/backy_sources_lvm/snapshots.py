"""Reads snapshots: of a thin volume only what is mapped, or only what has changed, as the pool's metadata tell.

The kernel keeps one copy of the metadata of a pool in use for such readers. Who wants to read reserves it, and has to
release it. thin_delta then tells of the blocks of two volumes, in XML, with numbers that count blocks of the pool. A
large volume has millions of lines, so nothing here holds more than a few of them.
"""

import fcntl
import logging
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple
from xml.etree import ElementTree as ET

from backy.api import Extent, SourceError
from backy.durable import closed_at_end, pwrite_all
from backy.extents import filled, joined
from backy_sources_file import OpenFile
from backy_sources_lvm.volumes import COMPARING, Volume, run, run_into

log = logging.getLogger(__name__)
FOLDER: Final = Path("/var/lib/backy-lvm")
"""Has a file for each pool, which is locked while its metadata is reserved, and names what is reserved."""
_BEGUN: Final = "reserving"
"""Is noted before anything is reserved."""
_SECTOR: Final = 512
Kind = Literal["same", "changed", "gone"]
"""What became of blocks: as in the earlier snapshot, written since then, or discarded since then."""
_KINDS: Final[dict[str, Kind]] = {"same": "same", "different": "changed", "right_only": "changed", "left_only": "gone"}


def parse_held(status: str) -> int | None:
    """Return the block of the reserved copy from what `dmsetup status` tells of a pool; None if there is none.

    Raises:
        SourceError: the pool can not be used, or this is no pool.
    """
    # the transaction, blocks of metadata, blocks of data, and the block in question; a pool that failed has fewer
    match = re.fullmatch(r"\d+ \d+ thin-pool \d+ \d+/\d+ \d+/\d+ (-|\d+) .*", status.strip())
    if match is None:
        raise SourceError(f"the pool can not be used: its status is '{status.strip()}'")
    return None if match[1] == "-" else int(match[1])


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Wait until no other backup has reserved the metadata of the pool whose file this is."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with closed_at_end(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)) as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        yield mark


@contextmanager
def _reserved(what: str, pool: Volume, mark: int) -> Iterator[None]:
    """Reserve the metadata while the context lasts. `mark` keeps what is reserved for the case that this is killed."""
    device = f"{pool.lv_dm_path}-tpool"
    held = parse_held(run(what, "dmsetup", "status", device))
    if held is not None:
        # The lock is ours, so nobody uses what a killed backup has noted. What it had not noted yet, or had given free
        # already, may be another program's by now, which then reads.
        if os.pread(mark, 64, 0).decode(errors="replace") not in {f"{held}\n", _BEGUN} or _is_read(what, pool):
            text = f"another program has reserved the metadata of the pool {pool.lv_name}; if none runs that does"
            raise SourceError(f"{what}: {text}, 'dmsetup message {device} 0 release_metadata_snap' gives it free")
        log.info("%s: releasing the metadata of the pool that a backup had reserved that was killed", what)
        _release(what, device, mark)
    _note(mark, _BEGUN)
    try:
        run(what, "dmsetup", "message", device, "0", "reserve_metadata_snap")
    except SourceError:
        _note(mark, "")
        raise
    try:
        _note(mark, f"{parse_held(run(what, 'dmsetup', 'status', device))}\n")
        yield
    finally:
        _release(what, device, mark)


def _is_read(what: str, pool: Volume) -> bool:
    """Tell whether a program has the metadata of a pool open, beside the pool itself."""
    columns = ("--columns", "--noheadings", "--options", "open")
    return run(what, "dmsetup", "info", *columns, f"{pool.lv_dm_path}_tmeta").strip() != "1"


def _release(what: str, device: str, mark: int) -> None:
    run(what, "dmsetup", "message", device, "0", "release_metadata_snap")
    _note(mark, "")


def _note(mark: int, text: str) -> None:
    os.ftruncate(mark, 0)
    pwrite_all(mark, text.encode(), 0)
    os.fsync(mark)


class Run(NamedTuple):
    """Bytes of a volume of which the same is true. Where there is none, nothing is mapped, nor was."""

    start: int
    end: int
    kind: Kind


def parse_runs(told: IO[bytes]) -> Iterator[Run]:
    """Read what thin_delta printed.

    Raises:
        ValueError: it is cut off, is something else, or blocks are out of order.
    """
    block = position = 0
    is_complete = False
    parent: ET.Element | None = None
    try:
        for event, element in ET.iterparse(told, ("start", "end")):  # noqa: S314  # thin_delta has made it
            if event == "end":
                is_complete |= element.tag == "diff"
            elif element.tag == "superblock":
                block = _whole(element, "data_block_size") * _SECTOR
            elif element.tag == "diff":
                parent = element
            elif element.tag in _KINDS:
                start, length = (_whole(element, key) * block for key in ("begin", "length"))
                if start < position or not length:
                    raise ValueError(f"{length} bytes at {start} follow what ends at {position}")
                position = start + length
                yield Run(start, position, _KINDS[element.tag])
                if parent is not None:
                    parent.clear()  # no tree is kept, which would be as large as the text
    except ET.ParseError as error:
        raise ValueError(f"it is cut off or no XML: {error}") from error
    if not is_complete:
        raise ValueError("it tells of no volume")


def _whole(element: ET.Element, key: str) -> int:
    number = element.get(key, "")
    if not (number.isascii() and number.isdecimal()):
        raise ValueError(f"{element.tag} has no number {key}")
    return int(number)


def differences(runs: Iterable[Run], earlier: int, size: int, *, holes: bool) -> Iterator[Extent]:
    """Yield what differs from a snapshot that had `earlier` bytes: all that is beyond its end does.

    Args:
        runs: What is known of the blocks.
        earlier: Where the earlier snapshot ends; 0 for all that there is.
        size: Bytes of the volume. Blocks may be mapped beyond it, in part or as a whole.
        holes: Whether what is not mapped reads as zeroes. It does not if the volume has an external origin.
    """
    least = {"same": earlier}
    found = ((max(run.start, least.get(run.kind, 0)), min(run.end, size), run.kind) for run in runs)
    extents = (Extent(start, end - start, kind != "gone" or not holes) for start, end, kind in found if start < end)
    return filled(extents, earlier, size, data=not holes)


class ThinSnapshot(OpenFile):
    """A snapshot of a thin volume.

    The file `told` has what the pool's metadata tell of it, and of what has changed since the snapshot `earlier`; None
    if that could not be read. `holes` tells whether what is not mapped reads as zeroes.
    """

    def __init__(self, path: Path, descriptor: int, told: int | None, earlier: Volume | None, *, holes: bool) -> None:
        super().__init__(path, descriptor)
        self._told = told
        self._earlier = earlier
        self._holes = holes

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes."""
        return super().extents() if self._told is None else joined(self._differences(self._told, 0))

    def changes(self) -> Iterator[Extent] | None:
        """Yield the ranges that differ from the earlier snapshot; None if there is none."""
        if self._told is None or self._earlier is None:
            return None
        return joined(self._differences(self._told, self._earlier.lv_size))

    def _differences(self, told: int, earlier: int) -> Iterator[Extent]:
        with _anew(told) as file:
            yield from differences(parse_runs(file), earlier, self.size, holes=self._holes)


def read_metadata(what: str, pool: Volume, told: IO[bytes], *thin_ids: str) -> int | None:
    """Have thin_delta compare two volumes of a pool, the earlier one first, and return the descriptor of what it tells.

    Return None, and log why, if the metadata can not be read.
    """
    command = ["thin_delta", "--metadata-snap", "--snap1", thin_ids[0], "--snap2", thin_ids[1]]
    try:
        with _locked(FOLDER / pool.lv_uuid) as mark, _reserved(what, pool, mark):
            run_into(told, what, *command, f"{pool.lv_dm_path}_tmeta", limit=COMPARING)
        # what can not be understood shall be known before a backup has relied on half of it
        with _anew(told.fileno()) as file:
            deque(parse_runs(file), maxlen=0)
    except (SourceError, OSError, ValueError) as error:
        cause = str(error).removeprefix(f"{what}: ")
        log.warning("%s: all of it is read, for the metadata of its pool can not be: %s", what, cause)
    else:
        return told.fileno()
    return None


def _anew(descriptor: int) -> IO[bytes]:
    """Open a file that has no name once more, with a position of its own."""
    return Path(f"/proc/self/fd/{descriptor}").open("rb")
