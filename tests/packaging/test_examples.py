"""The examples of the documentation are packages: each is installed for real and passes its own tests."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
DEBIAN_MODULES = Path("/usr/lib/python3/dist-packages")


def link_debian_modules(site_packages: Path, *names: str) -> None:
    """Make modules of Debian's Python importable, and nothing else that is there."""
    for name in names:
        found = list(DEBIAN_MODULES.glob(name))
        if not found or sys.version_info[:2] != (3, 11):
            pytest.skip(f"NOT TESTED: {name} of Debian is missing, or this is not the Python that it is for")
        for path in found:
            (site_packages / path.name).symlink_to(path)


def test_disks_of_a_real_qemu(environment: Callable, wheels: dict[str, Path]) -> None:
    made = environment(wheels["backy"], "hatchling>=1.21", "pytest>=8.2")
    made.pip("install", "--quiet", "--no-compile", "--no-build-isolation", EXAMPLES / "backy_sources_qemu")
    (site_packages,) = made.folder.glob("lib/python3.*/site-packages")
    link_debian_modules(site_packages, "nbd.py", "libnbdmod.cpython-311-*.so")

    with tempfile.TemporaryDirectory() as short:  # paths of sockets have to be
        command = [made.folder / "bin/pytest", "-q", "-p", "no:cacheprovider", "--basetemp", f"{short}/t"]
        folder = EXAMPLES / "backy_sources_qemu"
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert "NOT TESTED" not in done.stdout
