"""What the drill says is true, seen from outside: it is called as users call it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from backy.api import Image, Snapshot
from backy.importing import import_image
from backy.testing.memory import MemoryImage, MemoryRepository

BACKY = Path(sys.executable).with_name("backy")


@dataclass
class Disk:
    """A disk with this content, which was taken elsewhere."""

    content: bytes
    base: None = None
    name: None = None

    def snapshot(self, base: Image | None) -> Snapshot:
        """Return the image."""
        return MemoryImage(self.content)


@pytest.mark.parametrize(("end", "code"), [(b"\x55\xaa", 0), (b"", 1)])
def test_it_looks_for_a_boot_sector(backy_repository: MemoryRepository, end: bytes, code: int) -> None:
    """A disk that has none fails the drill."""
    import_image(backy_repository.directory, Disk(end.rjust(512, b"\0")), ("test",))
    backy = [BACKY, "-b", backy_repository.directory, "drill", "--type", "NAME"]

    assert subprocess.run([*backy, "--level", "0"], check=False).returncode == code
    assert subprocess.run([*backy, "--level", "1"], check=False).returncode == 1
