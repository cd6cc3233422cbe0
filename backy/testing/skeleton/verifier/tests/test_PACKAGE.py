"""What every verifier has to do: the tests are in the class that this one is made of."""

from __future__ import annotations

from typing import Any

import pytest

from backy.testing.verifier_contract import VerifierContract


class TestCLASS(VerifierContract):
    """Tell how the verifier is configured."""

    @pytest.fixture(params=[1, 2])
    def config(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        """Return the section `verifier`."""
        return {"type": "NAME", "every": request.param}
