"""Image files with known content, and the difference of two contents."""

import random
from pathlib import Path

from backy.api import CHUNK_SIZE


def write_image(path: Path, *chunks: int | None, tail: int = 0) -> Path:
    """Write an image of chunks and `tail` more random bytes. A chunk is given by its seed, a hole by None."""
    with path.open("wb") as stream:
        for seed in chunks:
            if seed is None:
                stream.seek(CHUNK_SIZE, 1)
            else:
                stream.write(random.Random(seed).randbytes(CHUNK_SIZE))  # noqa: S311  # no secret
        stream.write(random.Random(99).randbytes(tail))  # noqa: S311  # likewise
        stream.truncate(len(chunks) * CHUNK_SIZE + tail)
    return path


def difference(found: bytes | bytearray, expected: bytes) -> str:
    """Return a text with the first byte that differs, or an empty text for equal contents."""
    # pytest would explain the difference of two images for hours.
    if found == expected:
        return ""
    if len(found) != len(expected):
        return f"{len(found)} instead of {len(expected)} bytes"
    at = next(index for index, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other)
    return f"byte {at} is {found[at]:#04x} instead of {expected[at]:#04x}"
