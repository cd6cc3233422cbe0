"""A guest of this machine's Debian, made once, and what can be done to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.appliance.machine import kernel
from tests.backy_drills import guests

NEEDED = ("guestfish", "nbdkit", "sfdisk", "mkfs.ext4", "qemu-system-x86_64", "qemu-ga", "dpkg-query", "lspci")
NEEDED += ("unmkinitramfs", "cpio", "zstd")
BACKY = Path(sys.executable).with_name("backy")


@pytest.fixture(scope="session")
def able() -> None:
    """Skip where there is no libguestfs, or nothing to make guests of."""
    absent = [name for name in NEEDED if shutil.which(name) is None] + ([] if kernel() else ["a cloud kernel"])
    if absent or os.geteuid() != 0:
        pytest.skip(f"NOT TESTED: drills need root and libguestfs; missing: {absent}")


@pytest.fixture(scope="session")
def tree(able: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a guest."""
    tree = tmp_path_factory.mktemp("guest") / "tree"
    guests.make_tree(tree)
    return tree


def stored(image: Path) -> Path:
    """Return a repository beside an image that has it."""
    directory = image.with_suffix(".backy")
    for words in (("init", "file", image), ("backup", "daily")):
        subprocess.run([BACKY, "-b", directory, *words], check=True, stdout=subprocess.DEVNULL)
    return directory


@pytest.fixture(scope="session")
def backed_up() -> Callable[[Path], Path]:
    """Back up an image, as `backed_up(image)`; return the repository."""
    return stored


@pytest.fixture(scope="session")
def vm(tree: Path) -> Path:
    """A repository with a sound guest."""
    return stored(guests.ext4(tree.with_name("sound.img"), tree))


@pytest.fixture
def broken(tree: Path, tmp_path: Path) -> Callable[..., Path]:
    """Back up a guest whose root was changed, as `broken(change)`; return the repository."""

    def make(change: Callable[[Path], object], disk: Callable[[Path, Path], Path] = guests.ext4) -> Path:
        changed = tmp_path / "tree"
        guests.run("cp", "-a", tree, changed)
        change(changed)
        made = disk(tmp_path / "vm.img", changed)
        shutil.rmtree(changed)
        return stored(made)

    return make
