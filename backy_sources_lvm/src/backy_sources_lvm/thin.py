"""Reads a snapshot of a thin volume: only what is mapped, or only what has changed."""

import logging
import os
from collections.abc import Iterator
from typing import IO, Final

from backy.api import Extent, SourceError
from backy_sources_lvm import mapping
from backy_sources_lvm.device import Device
from backy_sources_lvm.metadata import ReservedError, compare
from backy_sources_lvm.volumes import Volume

log = logging.getLogger(__name__)
_PIECE: Final = 2**16


class ThinSnapshot(Device):
    """A snapshot of a thin volume.

    The file `told` has what the pool's metadata tell of it, and of what has changed since the snapshot `earlier`; None
    if that could not be read. `holes` tells whether what is not mapped reads as zeroes.
    """

    def __init__(self, descriptor: int, what: str, told: int | None, earlier: Volume | None, *, holes: bool) -> None:
        super().__init__(descriptor, what, lambda: None)
        self._told = told
        self._earlier = earlier
        self._holes = holes

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes."""
        if self._told is None:
            return super().extents()
        return mapping.extents(self._stretches(self._told))

    def changes(self) -> Iterator[Extent] | None:
        """Yield the ranges that differ from the earlier snapshot; None if there is none."""
        if self._told is None or self._earlier is None:
            return None
        return mapping.changes(self._stretches(self._told), self._earlier.lv_size)

    def _stretches(self, told: int) -> Iterator[mapping.Stretch]:
        return mapping.stretches(mapping.parse_runs(_pieces(told)), self.size, holes=self._holes)


def read_metadata(what: str, pool: Volume, told: IO[bytes], thin_ids: tuple[str, ...]) -> bool:
    """Write what `compare` finds to a file; return false, and log why, if that fails."""
    try:
        compare(what, pool, told, thin_ids)
        # what can not be understood shall be known before a backup has relied on half of it
        for _ in mapping.parse_runs(_pieces(told.fileno())):
            pass
    except ReservedError as error:
        log.warning("%s; all of it is read", error)
    except (SourceError, OSError, ValueError) as error:
        log.warning("%s: all of it is read, for the metadata of its pool can not be: %s", what, error)
    else:
        return True
    return False


def _pieces(file: int) -> Iterator[bytes]:
    """Yield the content of a file. Each call has a position of its own."""
    position = 0
    while piece := os.pread(file, _PIECE, position):
        position += len(piece)
        yield piece
