"""Reading chunks: a full one is decompressed, deltas are laid over their base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backy.errors import ChunkDamageError
from backy.image.chunkmap import checked
from backy.storage.chunked.codec import LARGEST_FRAME, SMALLEST_FRAME, Codec, Delta, apply_delta, decode_delta
from backy.storage.chunked.files import ChunkFile, ChunkFiles


class ChunkReader:
    """Gives chunks by their id. Safe to use from several threads."""

    def __init__(self, files: ChunkFiles, codec: Codec) -> None:
        self._files = files
        self._codec = codec

    def read(self, index: int, chunk_id: bytes) -> bytes:
        """Return the content of a chunk; the caller compares it with the id.

        Raises:
            ChunkDamageError: a file of it is missing, unreadable, or fails its checksum.
        """
        file = self.locate(chunk_id)
        with _blamed_on(chunk_id):
            return self.content(file)

    def content(self, file: ChunkFile) -> bytes:
        """Return the chunk in `file`: of a delta, its base with the pages of its companion and its own laid over."""
        if file.base is None:
            return self.full(file.chunk_id)
        content = self.full(file.base)
        for delta in [*file.made_of[1:], file]:
            content = apply_delta(self.delta(delta), content)
        return content

    def probe(self, index: int, chunk_id: bytes) -> int:
        """Look whether the files of a chunk are there and have sizes that they may have, and return their sum.

        Raises:
            ChunkDamageError: one is missing, or has an impossible size.
        """
        file = self.locate(chunk_id)
        total = 0
        with _blamed_on(chunk_id):
            for needed in [file, *file.made_of]:
                size = self._files.size(needed)
                if not SMALLEST_FRAME <= size <= LARGEST_FRAME:
                    raise ChunkDamageError(needed.chunk_id, f"{needed.kind} has an impossible size of {size} bytes")
                total += size
        return total

    def locate(self, chunk_id: bytes) -> ChunkFile:
        """Return the file of a chunk; raises ChunkDamageError if there is none."""
        file = self._files.find(chunk_id)
        if file is None:
            raise ChunkDamageError(chunk_id, "there is no file with this chunk")
        return file

    def full(self, chunk_id: bytes) -> bytes:
        """Return the content of a full chunk, as for `read`."""
        return self._frame(ChunkFile(chunk_id))

    def checked_full(self, chunk_id: bytes) -> bytes:
        """Return the content of a full chunk, compared with its id; raises ChunkDamageError."""
        return checked(chunk_id, self.full(chunk_id))

    def delta(self, file: ChunkFile) -> Delta:
        """Return a delta without its base, as for `read`."""
        content = self._frame(file)
        try:
            return decode_delta(content)
        except ValueError as error:
            raise ChunkDamageError(file.chunk_id, f"{file.kind}: {error}", content) from error

    def _frame(self, file: ChunkFile) -> bytes:
        frame = self._files.read(file)
        try:
            return self._codec.decompress(frame)
        except ValueError as error:
            raise ChunkDamageError(file.chunk_id, f"{file.kind}: {error}", frame) from error


@contextmanager
def _blamed_on(chunk_id: bytes) -> Iterator[None]:
    """Let damage of what a chunk is made of be damage of that chunk."""
    try:
        yield
    except ChunkDamageError as error:
        if error.chunk_id == chunk_id:
            raise
        cause = f"it is made of a damaged one: {error}"
        raise ChunkDamageError(chunk_id, cause, error.evidence, error.chunk_id) from error
