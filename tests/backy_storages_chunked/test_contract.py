from __future__ import annotations

from pathlib import Path

import pytest

from backy.testing.storage_contract import StorageContract, StorageUnderTest
from backy_storages_chunked import storage
from backy_storages_chunked.pool import Pool


class TestChunked(StorageContract):
    @pytest.fixture(
        params=[{}, {"compression": "none", "durability": "file"}, {"share": {"mode": "hardlink"}}],
        ids=["default", "uncompressed, synced", "shared"],
    )
    def subject(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> StorageUnderTest:
        folder = tmp_path / "base"
        folder.mkdir()
        if "share" in request.param:
            # elsewhere than usual: the suite wants to see an empty folder
            monkeypatch.setattr(storage, "beside", lambda *_: Pool(tmp_path / "pool", links=True))
        return StorageUnderTest({"type": "chunked", **request.param}, folder, recorded_folder=tmp_path)
