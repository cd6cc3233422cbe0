from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.soak
@pytest.mark.usefixtures("gateway")
def test_figures_stand_beside_goals() -> None:
    command = [sys.executable, "-m", "benchmarks.objects", "--size", "64", "--runs", "1"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for image in ("files", "nothing that can be compressed"):
        for goal in ("full", "restore"):
            row = rf"\| image of {image}, {goal}: .* \| at least 0\.7 \| [\d.]+ \(\d+ and \d+ MiB/s\) \|\n"
            assert re.search(row, printed), printed
    assert re.search(r"memory of any command, MiB \| at most 200 \| \d+ \|\n", printed)
