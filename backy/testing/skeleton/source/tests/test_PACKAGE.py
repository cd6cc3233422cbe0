"""Runs the tests that every source must pass. They are in the class `SourceContract`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.testing.source_contract import SourceContract, SourceUnderTest


class TestCLASS(SourceContract):
    """Override `subject` only. Add your own tests below or beside it."""

    @pytest.fixture
    def subject(self, backy_image: Callable[..., Path]) -> SourceUnderTest:
        """Make a source and name the actions that tests can take on it."""
        # Two chunks of data with a hole between them, and a short end.
        path = backy_image(1, None, 2, tail=5000)

        def write(offset: int, data: bytes) -> None:
            with path.open("r+b") as stream:
                stream.seek(offset)
                stream.write(data)

        # Leave out what your source can not do: the tests that need it are skipped.
        return SourceUnderTest(
            "NAME",
            str(path),
            path.read_bytes,
            write=write,
            resize=lambda size: os.truncate(path, size),
            remove=path.unlink,
            wrong_argument="",
        )
