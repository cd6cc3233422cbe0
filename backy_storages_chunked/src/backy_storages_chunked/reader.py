"""Reads chunks: decompresses a full one, and lays deltas over their base."""

from collections.abc import Iterator
from contextlib import contextmanager

from backy.api import checked
from backy.errors import ChunkDamageError
from backy_storages_chunked.codec import LARGEST_FRAME, SMALLEST_FRAME, Codec, Delta, apply_delta, decode_delta
from backy_storages_chunked.files import ChunkFile, ChunkFiles


class ChunkReader:
    """Reads chunks by their id. Safe to use from several threads."""

    def __init__(self, files: ChunkFiles, codec: Codec) -> None:
        self._files = files
        self._codec = codec

    def read(self, index: int, chunk_id: bytes) -> bytes:
        """Return the content of a chunk, which the caller compares with the id.

        Raises:
            ChunkDamageError: a file of it is missing, unreadable, or fails its checksum.
        """
        file = self.locate(chunk_id)
        with blamed_on(chunk_id):
            full, *deltas = [*file.made_of, file]
            content = self._frame(full)
            for delta in deltas:
                content = apply_delta(self.delta(delta), content)
            return content

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

    def full(self, chunk_id: bytes) -> bytes:
        """Return the content of a full chunk, compared with its id. Raises as `read`, and if the id differs."""
        return checked(chunk_id, self._frame(ChunkFile(chunk_id)))

    def delta(self, file: ChunkFile) -> Delta:
        """Return a delta without its base. Raises as `read`."""
        content = self._frame(file)
        try:
            return decode_delta(content)
        except ValueError as error:
            raise ChunkDamageError(file.chunk_id, f"{file.kind}: {error}", content) from error

    def _frame(self, file: ChunkFile) -> bytes:
        """Return the decompressed content of a file. Raises as `read`."""
        frame = self._files.read(file)
        try:
            return self._codec.decompress(frame)
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
