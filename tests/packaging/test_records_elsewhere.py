"""A storage of somebody else keeps chunks and records behind a server: installed for real, it passes its own tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "third_party_storage"


@pytest.mark.timeout(3600)
def test_a_storage_behind_a_server_of_objects(
    environment: Callable, wheels: dict[str, Path], rounds: Callable[[int, int], int], tmp_path: Path
) -> None:
    ours = [wheels[name] for name in ("backy_sources_file", "backy_storages_chunked")]
    made = environment(*ours, "hatchling>=1.21", "pytest>=8.2", "pytest-timeout>=2.3")
    made.pip("install", "--quiet", "--no-compile", "--no-build-isolation", PACKAGE)

    # 0 stands for every step
    variables = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "ROUNDS": str(rounds(12, 0))}
    command = [made.folder / "bin/pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/t", "tests"]
    command.append(f"--backy-crashes={rounds(1, 12)}")
    # the contract of our own storages tries it with what a failed backup has left, and a soak does it here
    command += ["-k", "not (test_power_loss and after)"] if rounds(1, 0) else []
    done = subprocess.run(command, cwd=PACKAGE, env=variables, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert "NOT TESTED" not in done.stdout
