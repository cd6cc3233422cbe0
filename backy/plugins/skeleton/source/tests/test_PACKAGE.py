"""What every source has to do: the tests are in the class that this one is made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.testing.source_contract import SourceContract, SourceUnderTest


class TestCLASS(SourceContract):
    """Make a source in `subject`, and tell what a test can do to it."""

    @pytest.fixture
    def subject(self, backy_image: Callable[..., Path]) -> SourceUnderTest:
        """Make an image of two chunks with a hole between them, and a short end."""
        path = backy_image(1, None, 2, tail=5000)

        def write(offset: int, data: bytes) -> None:
            with path.open("r+b") as stream:
                stream.seek(offset)
                stream.write(data)

        return SourceUnderTest(
            "NAME",
            str(path),
            path.read_bytes,
            write=write,
            resize=lambda size: os.truncate(path, size),
            remove=path.unlink,
            wrong_argument="",
        )
