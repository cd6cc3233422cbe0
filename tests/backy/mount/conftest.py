from __future__ import annotations

from collections.abc import Iterator

import pytest

from backy.image.cache import ChunkCache


@pytest.fixture
def cache() -> Iterator[ChunkCache]:
    """A cache with room for everything."""
    made = ChunkCache(2**30)
    made.start()
    yield made
    made.stop()
