from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.testing.images import difference


@given(st.binary(min_size=1, max_size=50), st.data())
def test_the_first_byte_that_differs_is_named(content: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(content) - 1))
    tail = data.draw(st.binary(min_size=len(content) - place - 1, max_size=len(content) - place - 1))
    other = content[:place] + bytes([content[place] ^ 1]) + tail

    assert difference(other, content) == f"byte {place} is {other[place]:#04x} instead of {content[place]:#04x}"


@pytest.mark.parametrize(("found", "expected", "text"), [(b"", b"", ""), (b"a", b"", "1 instead of 0 bytes")])
def test_equal_contents_and_other_lengths(found: bytes, expected: bytes, text: str) -> None:
    assert difference(found, expected) == text
