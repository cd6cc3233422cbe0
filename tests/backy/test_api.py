from __future__ import annotations

import pytest

from backy.api import checked, identify
from backy.errors import ChunkDamageError


def test_a_chunk_is_checked_by_its_id_and_its_length() -> None:
    assert checked(identify(b"content"), b"content") == b"content"
    assert checked(identify(b"content"), b"content", 7) == b"content"
    for length in (None, 8):
        wrong = b"contend" if length is None else b"content"
        with pytest.raises(ChunkDamageError, match="does not have this id") as caught:
            checked(identify(b"content"), wrong, length)
        assert (caught.value.chunk_id, caught.value.evidence) == (identify(b"content"), wrong)
