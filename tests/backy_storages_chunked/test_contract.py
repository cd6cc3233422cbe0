from __future__ import annotations

from pathlib import Path

import pytest

from backy.testing.storage_contract import StorageContract, StorageUnderTest


class TestChunked(StorageContract):
    @pytest.fixture(params=[{}, {"compression": "none", "durability": "file"}], ids=["default", "uncompressed, synced"])
    def subject(self, request: pytest.FixtureRequest, tmp_path: Path) -> StorageUnderTest:
        return StorageUnderTest({"type": "chunked", **request.param}, tmp_path)
