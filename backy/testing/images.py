"""Image files with known content."""

from __future__ import annotations

import random
from pathlib import Path

from backy.api import CHUNK_SIZE

_TAIL_SEED = 99


def write_image(path: Path, *chunks: int | None, tail: int = 0) -> Path:
    """Write an image of whole chunks, each the random bytes of its seed or a hole, and `tail` random bytes more."""
    with path.open("wb") as stream:
        for seed in chunks:
            if seed is None:
                stream.seek(CHUNK_SIZE, 1)
            else:
                stream.write(random.Random(seed).randbytes(CHUNK_SIZE))  # noqa: S311  # no secret
        stream.write(random.Random(_TAIL_SEED).randbytes(tail))  # noqa: S311  # likewise
        stream.truncate(len(chunks) * CHUNK_SIZE + tail)
    return path
