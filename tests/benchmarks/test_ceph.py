from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import Cluster

ROOT = Path(__file__).parents[2]


@pytest.mark.soak
def test_figures_stand_beside_goals(ceph: Cluster) -> None:
    options = ["--whole", "16", "--partly", "256", "--sparse", "2048", "--runs", "1"]
    command = [sys.executable, "-m", "benchmarks.ceph", *options]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert re.search(r"reading: .* \| at least 1\.0 \| [\d.]+ \(\d+ and \d+ MiB/s\) \|\n", printed)
    assert re.search(r"40 MiB changed in 0\.25 GiB, verifier none: .* \| at most 1\.3 \| 1\.00 \|\n", printed)
    assert re.search(r"40 MiB changed: time for 2 GiB / time for 1 GiB \| 1 \| [\d.]+ \(", printed)
