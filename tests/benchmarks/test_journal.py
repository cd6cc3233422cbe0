from __future__ import annotations

import subprocess
import sys


def test_a_long_journal_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.journal", "--lines", "300"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("| a journal of 300 lines | wanted | found |")
    assert "| the lines of a backup, until they are on the disk | under 15 ms | " in result.stdout
