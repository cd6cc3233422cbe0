"""What the command does, seen from outside: it is called as users call it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from backy.testing.memory import MemoryRepository

BACKY = Path(sys.executable).with_name("backy")


def test_it_makes_a_revision(backy_repository: MemoryRepository, backy_image: Callable[..., Path]) -> None:
    """What it imports is what can be restored."""
    image = backy_image(1, None, 2, tail=5000)
    backy = [BACKY, "-b", backy_repository.directory]

    subprocess.run([*backy, "NAME", "test", image], check=True)
    restored = subprocess.run([*backy, "restore", "-"], capture_output=True, check=True).stdout

    assert restored == image.read_bytes()


def test_an_image_that_is_not_there_is_refused(backy_repository: MemoryRepository) -> None:
    """The exit code is that of a wrong command line."""
    backy = [BACKY, "-b", backy_repository.directory]

    assert subprocess.run([*backy, "NAME", "test", "missing.img"], check=False).returncode == 2
