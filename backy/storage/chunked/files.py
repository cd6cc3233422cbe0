"""Where chunk files lie: in `chunks/<first two digits of the id>/`, under names that tell what they are made of.

<id>.zst                                a full chunk
<id>.<base id>.delta                    the pages in which a chunk differs from a full one
<id>.<base id>.<companion id>.delta     likewise, but for those that the companion, a delta of the same base, has
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from backy.errors import ChunkDamageError

FULL_SUFFIX = ".zst"
DELTA_SUFFIX = ".delta"
_NAME = re.compile(r"([0-9a-f]{64})(?:\.zst|\.([0-9a-f]{64})(?:\.([0-9a-f]{64}))?\.delta)")


class ChunkFile(NamedTuple):
    """A file's name, taken apart. A full chunk has no base, and few deltas have a companion."""

    chunk_id: bytes
    base: bytes | None = None
    companion: bytes | None = None

    @property
    def made_of(self) -> list[ChunkFile]:
        """The other files that it takes to read the chunk: the full chunk first, then the companion."""
        base = [] if self.base is None else [ChunkFile(self.base)]
        return base if self.companion is None else [*base, ChunkFile(self.companion, self.base)]

    @property
    def kind(self) -> str:
        """What messages about the chunk call this file."""
        return "the full chunk" if self.base is None else f"the delta on base {self.base.hex()}"

    @property
    def name(self) -> str:
        """The name of the file in its folder."""
        ids = [chunk_id.hex() for chunk_id in self if chunk_id is not None]
        return ".".join(ids) + (FULL_SUFFIX if self.base is None else DELTA_SUFFIX)


def parse_name(name: str) -> ChunkFile | None:
    """Take a file's name apart; None if it is not that of a chunk."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    chunk_id, base, companion = (bytes.fromhex(digits) if digits else None for digits in match.groups())
    return None if chunk_id is None else ChunkFile(chunk_id, base, companion)


class ChunkFiles:
    """The folder `chunks` of a repository. What deltas there are is remembered as of the first look into a folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.temporary = directory / "tmp"
        self._deltas: dict[int, dict[bytes, list[ChunkFile]]] = {}

    def path(self, file: ChunkFile) -> str:
        """Return where `file` lies."""
        return os.path.join(self.directory, f"{file.chunk_id[0]:02x}", file.name)

    def find(self, chunk_id: bytes) -> ChunkFile | None:
        """Return the file that holds a chunk: a full one wins over a delta. None if there is neither."""
        full = ChunkFile(chunk_id)
        return full if self.exists(full) else next(iter(self.deltas(chunk_id)), None)

    def deltas(self, chunk_id: bytes) -> list[ChunkFile]:
        """Return the delta files of a chunk as of the first look: one, unless crashes left others that nobody needs."""
        return self._folder_deltas(chunk_id[0]).get(chunk_id, [])

    def exists(self, file: ChunkFile) -> bool:
        """Tell whether there is such a file."""
        return os.path.exists(self.path(file))

    def size(self, file: ChunkFile) -> int:
        """Return the bytes of a file; raises ChunkDamageError if it is missing."""
        try:
            return os.stat(self.path(file)).st_size
        except OSError as error:
            raise ChunkDamageError(file.chunk_id, f"{file.kind}: {error.strerror}") from error

    def _folder_deltas(self, number: int) -> dict[bytes, list[ChunkFile]]:
        """Return the deltas in a folder by their ids."""
        if number not in self._deltas:
            deltas: dict[bytes, list[ChunkFile]] = {}
            for file in self.folder(number):
                if file.base is not None:
                    deltas.setdefault(file.chunk_id, []).append(file)
            self._deltas[number] = deltas
        return self._deltas[number]

    def folder(self, number: int) -> Iterator[ChunkFile]:
        """Yield the chunk files of one of the 256 folders, in no order."""
        try:
            names = os.listdir(self.directory / f"{number:02x}")
        except FileNotFoundError:
            return
        for name in names:
            file = parse_name(name)
            if file is not None:
                yield file

    def read(self, file: ChunkFile) -> bytes:
        """Return a file's content as it lies on the disk.

        Raises:
            ChunkDamageError: it is missing or can not be read.
        """
        try:
            with open(self.path(file), "rb", buffering=0) as stream:
                return stream.read()
        except OSError as error:
            raise ChunkDamageError(file.chunk_id, f"{file.kind}: {error.strerror}") from error
