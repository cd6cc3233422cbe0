from __future__ import annotations

import subprocess
import sys


def test_an_idle_scheduler_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.scheduler", "--jobs", "3", "--revisions", "2", "--idle", "0.1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("| 3 jobs, 2 revisions each | wanted | found |")
    assert "| start to ready | under 10 s | " in result.stdout
