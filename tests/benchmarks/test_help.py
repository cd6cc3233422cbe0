"""Those that take long run in a soak; that each can be called is seen in each run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if "@click.command" in path.read_text() and path.stem != "run"
)


@pytest.mark.parametrize("name", COMMANDS)
def test_it_tells_what_it_measures(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith(f"Usage: python -m benchmarks.{name} [OPTIONS]")
