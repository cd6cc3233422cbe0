from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_plugins_that_nobody_needs_are_not_imported() -> None:
    command = [sys.executable, "-m", "benchmarks.plugins", "--runs", "1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    heading, _, without, with_all, needed, missing = ended.stdout.splitlines()
    assert heading == "| 50 plugins installed | wanted | found |"
    assert without.startswith("| processor time of `find` without |")
    assert with_all.startswith("| processor time of `find` with them |")
    assert needed == "| plugins that `find` imports | 0 | 0 |"
    assert missing == "| plugins that are imported when one is missing | 0 | 0 |"
