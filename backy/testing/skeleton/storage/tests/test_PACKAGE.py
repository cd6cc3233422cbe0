"""What every storage has to do: the tests are in the class that this one is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from backy.testing.storage_contract import StorageContract, StorageUnderTest


class TestCLASS(StorageContract):
    """Tell how the storage is configured, and where to try it."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> StorageUnderTest:
        """Return the section `storage` and an empty folder."""
        folder = tmp_path / "folder"
        folder.mkdir()
        return StorageUnderTest({"type": "NAME"}, folder)
