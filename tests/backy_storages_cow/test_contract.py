from __future__ import annotations

import pytest

from backy.testing.storage_contract import StorageContract, StorageUnderTest


class TestCow(StorageContract):
    @pytest.fixture(params=["btrfs", "xfs"])
    def subject(self, request: pytest.FixtureRequest, mount) -> StorageUnderTest:
        folder = mount(request.param) / "empty"
        folder.mkdir()
        return StorageUnderTest({"type": "cow"}, folder)
