from __future__ import annotations

from typing import Any

import pytest

from backy.testing.verifier_contract import VerifierContract


class TestVerifiers(VerifierContract):
    @pytest.fixture(params=["changed", "full", "none", "sample"])
    def config(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {"type": request.param}


class TestLargeSample(VerifierContract):
    @pytest.fixture
    def config(self) -> dict[str, Any]:
        return {"type": "sample", "percent": 100}
