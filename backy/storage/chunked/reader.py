"""Reading chunks: a full one is decompressed, a delta is laid over its base."""

from __future__ import annotations

from backy.chunkmap import identify
from backy.errors import ChunkDamageError
from backy.storage.chunked.codec import LARGEST_FRAME, SMALLEST_FRAME, Codec, Delta, apply_delta, decode_delta
from backy.storage.chunked.files import ChunkFile, ChunkFiles


class ChunkReader:
    """Gives chunks by their id. Safe to use from several threads."""

    def __init__(self, files: ChunkFiles, codec: Codec) -> None:
        self._files = files
        self._codec = codec

    def read(self, index: int, identity: bytes) -> bytes:
        """Return the content of a chunk; the caller compares it with the id.

        Raises:
            ChunkDamageError: a file of it is missing, unreadable, or fails its checksum.
        """
        file = self.locate(identity)
        if file.base is None:
            return self.full(identity)
        try:
            return apply_delta(self.delta(file), self.full(file.base))
        except ChunkDamageError as error:
            if error.identity == identity:
                raise
            raise ChunkDamageError(identity, f"its base is damaged: {error}", error.evidence, file.base) from error

    def probe(self, index: int, identity: bytes) -> None:
        """Look whether the files of a chunk are there and have sizes that they may have; raises ChunkDamageError."""
        file = self.locate(identity)
        self._probe(file)
        if file.base is not None:
            try:
                self._probe(ChunkFile(file.base, None))
            except ChunkDamageError as error:
                raise ChunkDamageError(identity, f"its base is damaged: {error}", base=file.base) from error

    def _probe(self, file: ChunkFile) -> None:
        size = self._files.size(file)
        if not SMALLEST_FRAME <= size <= LARGEST_FRAME:
            raise ChunkDamageError(file.identity, f"{file.kind} has an impossible size of {size} bytes")

    def locate(self, identity: bytes) -> ChunkFile:
        """Return the file of a chunk; raises ChunkDamageError if there is none."""
        file = self._files.find(identity)
        if file is None:
            raise ChunkDamageError(identity, "there is no file with this chunk")
        return file

    def full(self, identity: bytes) -> bytes:
        """Return the content of a full chunk, as for `read`."""
        return self._content(ChunkFile(identity, None))

    def checked_full(self, identity: bytes) -> bytes:
        """Return the content of a full chunk, compared with its id; raises ChunkDamageError."""
        content = self.full(identity)
        if identify(content) != identity:
            raise ChunkDamageError(identity, "its content is damaged: it does not have this id", content)
        return content

    def delta(self, file: ChunkFile) -> Delta:
        """Return a delta without its base, as for `read`."""
        content = self._content(file)
        try:
            return decode_delta(content)
        except ValueError as error:
            raise ChunkDamageError(file.identity, f"{file.kind}: {error}", content) from error

    def _content(self, file: ChunkFile) -> bytes:
        frame = self._files.read(file)
        try:
            return self._codec.decompress(frame)
        except ValueError as error:
            raise ChunkDamageError(file.identity, f"{file.kind}: {error}", frame) from error
