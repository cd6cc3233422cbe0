"""The storage keeps the contract, on a real gateway."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backy.testing.storage_contract import StorageContract, StorageUnderTest
from backy_storages_s3 import purging


class TestS3Storage(StorageContract):
    time_limit = 600.0

    @pytest.fixture
    def subject(
        self,
        through_proxy: dict[str, Any],
        blobs: MutableMapping[str, bytes],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> StorageUnderTest:
        # the contract does not know of time: one purge does all
        monkeypatch.setattr(purging, "GRACE", timedelta(0))
        (tmp_path / "jobs").mkdir()
        return StorageUnderTest(through_proxy, tmp_path / "jobs", blobs=blobs)
