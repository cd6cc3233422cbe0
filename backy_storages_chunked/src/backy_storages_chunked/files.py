"""Reads the chunk files in `chunks/<first two digits of the id>/`. Their names tell which files a chunk is made of.

<id>.zst                                a full chunk
<id>.<base id>.delta                    the pages in which a chunk differs from a full one
<id>.<base id>.<companion id>.delta     likewise, without the pages that the companion, a delta of the same base, has
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from backy.durable import closed_at_end, open_regular, read_file, refuse_links
from backy.errors import ChunkDamageError
from backy_storages_chunked.codec import LARGEST_FRAME, SMALLEST_FRAME, Codec, Delta, apply_delta, decode_delta
from backy_storages_chunked.pool import NONE, Pool

_NAME = re.compile(r"([0-9a-f]{64})(?:\.zst|\.([0-9a-f]{64})(?:\.([0-9a-f]{64}))?\.delta)")


class ChunkFile(NamedTuple):
    """The parts of a file's name. A full chunk has no base, and few deltas have a companion."""

    chunk_id: bytes
    base: bytes | None = None
    companion: bytes | None = None

    @property
    def made_of(self) -> list[ChunkFile]:
        """The other files that have to be read for the chunk: the full chunk, then the companion."""
        base = [] if self.base is None else [ChunkFile(self.base)]
        return base if self.companion is None else [*base, ChunkFile(self.companion, self.base)]

    @property
    def kind(self) -> str:
        """The words for this file in messages about the chunk."""
        return "the full chunk" if self.base is None else f"the delta on base {self.base.hex()}"

    @property
    def name(self) -> str:
        """The file's name in its folder."""
        ids = [chunk_id.hex() for chunk_id in self if chunk_id is not None]
        return ".".join(ids) + (".zst" if self.base is None else ".delta")


def parse_name(name: str) -> ChunkFile | None:
    """Return the parts of a file's name; None if it is not the name of a chunk file."""
    match = _NAME.fullmatch(name)
    # Ids are left out at the end only, as the fields of ChunkFile with defaults are.
    return ChunkFile(*(bytes.fromhex(digits) for digits in match.groups() if digits)) if match else None


class ChunkFiles:
    """The folder `chunks` of a repository. Each of its folders is listed once, to remember which deltas it has."""

    def __init__(self, directory: Path, pool: Pool = NONE) -> None:
        self.directory = directory
        self.pool = pool
        # On the same file system as the chunks, so that files can be renamed into place.
        self.temporary = directory / "tmp"
        self._deltas: dict[int, dict[bytes, ChunkFile]] = {}
        """By the number of the folder and the id of the chunk, as they were when the folder was listed."""

    def path(self, file: ChunkFile) -> str:
        """Return the path of `file`."""
        return os.path.join(self.directory, f"{file.chunk_id[0]:02x}", file.name)

    def find(self, chunk_id: bytes) -> ChunkFile | None:
        """Return the file to read a chunk from; None if there is none."""
        # A full chunk before a delta: a repair stores in full what a damaged delta has.
        full = ChunkFile(chunk_id)
        if self.exists(full):
            return full
        if (number := chunk_id[0]) not in self._deltas:
            # Of a chunk there is more than one only after crashes.
            self._deltas[number] = {file.chunk_id: file for file in self.folder(number) if file.base is not None}
        return self._deltas[number].get(chunk_id)

    def exists(self, file: ChunkFile) -> bool:
        """Return whether `file` is there."""
        return os.path.exists(self.path(file))

    def size(self, file: ChunkFile) -> int:
        """Return the size of a file in bytes.

        Raises:
            ChunkDamageError: the file is missing or can not be looked at.
        """
        try:
            return os.stat(self.path(file)).st_size
        except OSError as error:
            raise ChunkDamageError(file.chunk_id, f"{file.kind}: {error.strerror}") from error

    def drop_cached(self, file: ChunkFile, *, sync: bool) -> None:
        """Have a file read from the disk the next time; bring it there before if `sync` is true. Raises OSError."""
        with closed_at_end(open_regular(self.path(file))) as descriptor:
            if sync:
                os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def folder(self, number: int) -> Iterator[ChunkFile]:
        """Yield the chunk files in one of the 256 folders, in no order."""
        name = f"{number:02x}"
        refuse_links(self.directory, name)
        # Folders are made when the first chunk needs them.
        with suppress(FileNotFoundError):
            yield from filter(None, map(parse_name, os.listdir(os.path.join(self.directory, name))))

    def read(self, file: ChunkFile) -> bytes:
        """Return the stored content of a file.

        Raises:
            ChunkDamageError: the file is missing or can not be read.
        """
        try:
            return read_file(self.path(file), LARGEST_FRAME)
        except OSError as error:
            raise ChunkDamageError(file.chunk_id, f"{file.kind}: {error.strerror}") from error


class ChunkReader:
    """Reads chunks by their id. Safe to use from several threads."""

    def __init__(self, files: ChunkFiles, codec: Codec) -> None:
        self._files = files
        self._codec = codec
        # Chunks that had one content once, as those of a fresh file system, may be deltas of one base.
        # Not of a method: a circle of references would keep them after this reader.
        self._base = lru_cache(4)(partial(_content, files, codec))

    def read(self, index: int, chunk_id: bytes) -> bytes:
        """Return the content of a chunk, which the caller compares with the id.

        Raises:
            ChunkDamageError: a file of it is missing, unreadable, or fails its checksum.
        """
        file = self.locate(chunk_id)
        with blamed_on(chunk_id):
            full, *deltas = [*file.made_of, file]
            content = self._base(full) if deltas else self.content(full)
            for delta in deltas:
                content = apply_delta(self.delta(delta), content)
            return content

    def frame(self, index: int, chunk_id: bytes) -> bytes | None:
        """Return the file of a full chunk as it is; None for a delta. Raises as `read`."""
        file = self.locate(chunk_id)
        return self._files.read(file) if file.base is None else None

    def probe(self, index: int, chunk_id: bytes) -> int:
        """Return the total size in bytes of the files of a chunk, without reading them.

        Raises:
            ChunkDamageError: a file is missing, or has an impossible size.
        """
        file = self.locate(chunk_id)
        total = 0
        with blamed_on(chunk_id):
            for needed in [file, *file.made_of]:
                size = self._files.size(needed)
                # A crash of a file system leaves files that are empty or far too long.
                if not SMALLEST_FRAME <= size <= LARGEST_FRAME:
                    raise ChunkDamageError(needed.chunk_id, f"{needed.kind} has an impossible size of {size} bytes")
                total += size
        return total

    def locate(self, chunk_id: bytes) -> ChunkFile:
        """Return the file to read a chunk from.

        Raises:
            ChunkDamageError: there is none.
        """
        try:
            file = self._files.find(chunk_id)
        except OSError as error:
            # Damage of this chunk: one folder that can not be listed must not end the reading of all others.
            raise ChunkDamageError(chunk_id, f"its folder: {error.strerror}") from error
        if file is None:
            raise ChunkDamageError(chunk_id, "there is no file with this chunk")
        return file

    def delta(self, file: ChunkFile) -> Delta:
        """Return a delta without its base. Raises as `read`."""
        content = self.content(file)
        try:
            return decode_delta(content)
        except ValueError as error:
            raise ChunkDamageError(file.chunk_id, f"{file.kind}: {error}", content) from error

    def content(self, file: ChunkFile) -> bytes:
        """Return the decompressed content of a file. Raises as `read`."""
        return _content(self._files, self._codec, file)


def _content(files: ChunkFiles, codec: Codec, file: ChunkFile) -> bytes:
    frame = files.read(file)
    try:
        return codec.decompress(frame)
    except ValueError as error:
        # The frame is the evidence: its damage may show what has happened to the disk.
        raise ChunkDamageError(file.chunk_id, f"{file.kind}: {error}", frame) from error


@contextmanager
def blamed_on(chunk_id: bytes) -> Iterator[None]:
    """Raise damage of another chunk as damage of chunk `chunk_id`, which is made of it."""
    try:
        yield
    except ChunkDamageError as error:
        if error.chunk_id == chunk_id:
            raise
        # The caller asked for this chunk, and a repair needs the id of the other one as well.
        cause = f"it is made of a damaged one: {error}"
        raise ChunkDamageError(chunk_id, cause, error.evidence, error.chunk_id) from error
