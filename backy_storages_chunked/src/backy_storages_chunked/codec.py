"""The content of a chunk file; docs/reference/format.md has the format with test vectors.

A full chunk is one plain zstd frame of the content. A delta is one zstd frame of, little endian:

    8 bytes   magic `backydlt`
    u32       length of the chunk in bytes
    u32       number of pages
    u64       bytes spent on earlier deltas of the same companion, or of the same base without a companion, along the
              chunk's history
    u16       per page: its number in the chunk, ascending
    bytes     the pages; each has 4096 bytes, the last page of an odd chunk fewer

To get the chunk, take the base, or the chunk that the companion makes of it. Cut it or fill it with zeroes to the
length, then lay the pages over. Every frame has a checksum.
"""

import struct
import threading
from collections.abc import Sequence
from typing import NamedTuple

import zstandard

from backy.api import CHUNK_SIZE, PAGE_SIZE

NO_COMPRESSION = -131072
"""The zstd level that compresses nothing: 4 GB/s, and 110 bytes of framing for 4 MiB."""

_MAGIC = b"backydlt"
_HEADER = struct.Struct("<8sIIQ")
SMALLEST_FRAME = 11
"""Bytes of the smallest possible frame: magic 4, descriptor 1, length 1, block header 3, data 1 or more, checksum 4."""
LARGEST_FRAME = CHUNK_SIZE + 4 * 1024
"""Bytes that no frame written here exceeds."""
_LARGEST = CHUNK_SIZE + _HEADER.size + 2 * CHUNK_SIZE // PAGE_SIZE


class Delta(NamedTuple):
    """The pages in which a chunk differs from the chunk that it is made of."""

    length: int
    """Bytes of the chunk."""
    spent: int
    """Bytes spent on earlier deltas, see above."""
    pages: dict[int, bytes]
    """Content by page number, ascending."""


class Codec(threading.local):
    """Makes and reads zstd frames with checksums. Each thread has its own memory of zstd."""

    # Python calls this again in each thread that uses the object.
    def __init__(self, level: int) -> None:
        # The content size is what `decompress` checks before it allocates anything.
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
        self._decompressor = zstandard.ZstdDecompressor()

        self._offered = b"", b""

    def offer(self, content: bytes, frame: bytes) -> None:
        """Let `compress` return a frame that somebody else has made of `content`, if it is as those made here."""
        made = zstandard.get_frame_parameters(frame)
        length = made.content_size if made.has_checksum and made.window_size <= CHUNK_SIZE and not made.dict_id else 0
        if length == len(content) and len(frame) <= LARGEST_FRAME:
            self._offered = content, frame

    def compress(self, content: bytes) -> bytes:
        """Return one frame with `content`, its length and a checksum."""
        offered, frame = self._offered
        return frame if offered is content else self._compressor.compress(content)

    def decompress(self, frame: bytes) -> bytes:
        """Return the content of one frame.

        Raises:
            ValueError: it is not one whole frame, fails its checksum, or claims to be empty or larger than any chunk.
        """
        try:
            # zstandard does not check a frame that claims to be empty. No chunk is empty.
            if not 0 < zstandard.frame_content_size(frame) <= _LARGEST:
                raise ValueError("the zstd frame claims an impossible length")
            return self._decompressor.decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ValueError(f"the zstd frame is damaged: {error}") from error


def make_delta(data: bytes, pages: Sequence[int], spent: int) -> Delta:
    """Make a delta of the pages numbered `pages`, ascending, of a chunk's content."""
    return Delta(len(data), spent, {page: data[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] for page in pages})


def encode_delta(delta: Delta) -> bytes:
    """Return the content of a delta's frame."""
    count = len(delta.pages)
    header = _HEADER.pack(_MAGIC, delta.length, count, delta.spent)
    return b"".join([header, struct.pack(f"<{count}H", *delta.pages), *delta.pages.values()])


def decode_delta(content: bytes) -> Delta:
    """Read the content of a delta's frame.

    Raises:
        ValueError: `content` is no delta, or its parts do not fit together.
    """
    if len(content) < _HEADER.size:
        raise ValueError("the delta is cut short")
    magic, length, count, spent = _HEADER.unpack_from(content)
    start = _HEADER.size + 2 * count
    if magic != _MAGIC or length > CHUNK_SIZE or start > len(content):
        raise ValueError("the delta has an impossible header")
    numbers = struct.unpack_from(f"<{count}H", content, _HEADER.size)
    pages = {}
    for number in numbers:
        size = min(PAGE_SIZE, length - number * PAGE_SIZE)
        pages[number] = content[start : start + size]
        start += size
        if size <= 0 or start > len(content):
            raise ValueError("the delta has pages outside of its chunk")
    # Page numbers that are twice or out of order: nothing that was written here, so nothing to guess about.
    if start != len(content) or list(pages) != sorted(numbers) or len(pages) != count:
        raise ValueError("the delta's pages do not fit its header")
    return Delta(length, spent, pages)


def apply_delta(delta: Delta, base: bytes) -> bytes:
    """Return the chunk that `delta` makes of `base`."""
    view = memoryview(base[: delta.length].ljust(delta.length, b"\0"))
    # Joining costs one copy and one allocation. A bytearray of the base, and bytes of that, cost ten times as much.
    pieces: list[bytes | memoryview] = []
    end = 0
    for number, page in delta.pages.items():
        start = number * PAGE_SIZE
        pieces += [view[end:start], page]
        end = start + len(page)
    return b"".join([*pieces, view[end:]])
