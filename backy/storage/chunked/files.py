"""Where chunk files lie: `chunks/<first two digits of the id>/<id>.zst` and `<id>.<base id>.delta`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from backy.errors import ChunkDamageError

FULL_SUFFIX = ".zst"
DELTA_SUFFIX = ".delta"
_NAME = re.compile(r"([0-9a-f]{64})(?:\.zst|\.([0-9a-f]{64})\.delta)")


class ChunkFile(NamedTuple):
    """A file's name, taken apart. A full chunk has no base."""

    identity: bytes
    base: bytes | None

    @property
    def kind(self) -> str:
        """What messages about the chunk call this file."""
        return "the full chunk" if self.base is None else f"the delta on base {self.base.hex()}"

    @property
    def name(self) -> str:
        """The name of the file in its folder."""
        if self.base is None:
            return f"{self.identity.hex()}{FULL_SUFFIX}"
        return f"{self.identity.hex()}.{self.base.hex()}{DELTA_SUFFIX}"


def parse_name(name: str) -> ChunkFile | None:
    """Take a file's name apart; None if it is not that of a chunk."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return ChunkFile(bytes.fromhex(match[1]), bytes.fromhex(match[2]) if match[2] else None)


class ChunkFiles:
    """The folder `chunks` of a repository. What deltas there are is remembered as of the first look into a folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.temporary = directory / "tmp"
        self._deltas: dict[int, dict[bytes, list[bytes]]] = {}

    def path(self, file: ChunkFile) -> str:
        """Return where `file` lies."""
        return os.path.join(self.directory, f"{file.identity[0]:02x}", file.name)

    def find(self, identity: bytes) -> ChunkFile | None:
        """Return the file that holds a chunk: a full one wins over a delta. None if there is neither."""
        full = ChunkFile(identity, None)
        return full if self.exists(full) else next(iter(self.deltas(identity)), None)

    def deltas(self, identity: bytes) -> list[ChunkFile]:
        """Return the delta files of a chunk as of the first look: one, unless crashes left others that nobody needs."""
        return [ChunkFile(identity, base) for base in self._folder_deltas(identity[0]).get(identity, [])]

    def exists(self, file: ChunkFile) -> bool:
        """Tell whether there is such a file."""
        return os.path.exists(self.path(file))

    def size(self, file: ChunkFile) -> int:
        """Return the bytes of a file; raises ChunkDamageError if it is missing."""
        try:
            return os.stat(self.path(file)).st_size
        except OSError as error:
            raise ChunkDamageError(file.identity, f"{file.kind}: {error.strerror}") from error

    def _folder_deltas(self, number: int) -> dict[bytes, list[bytes]]:
        """Return the bases of the deltas in a folder, by the delta's id."""
        if number not in self._deltas:
            bases: dict[bytes, list[bytes]] = {}
            for file in self.folder(number):
                if file.base is not None:
                    bases.setdefault(file.identity, []).append(file.base)
            self._deltas[number] = bases
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
            raise ChunkDamageError(file.identity, f"{file.kind}: {error.strerror}") from error
