"""The storage keeps the contract, on a real gateway."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backy.testing.laboratory import Laboratory
from backy.testing.storage_contract import StorageContract, StorageUnderTest
from backy.testing.trials import ACTIONS
from backy_storages_s3 import purging

SLOW = {"backup after a failed one"}


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

    # what only the core leaves of a failed backup is tried with storages that take less time for each state
    @pytest.mark.parametrize("action", [pytest.param(one, marks=[pytest.mark.soak] * (one in SLOW)) for one in ACTIONS])
    def test_power_loss(self, laboratory: Laboratory, pytestconfig: pytest.Config, action: str) -> None:
        super().test_power_loss(laboratory, pytestconfig, action)
