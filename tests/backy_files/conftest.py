"""Disks of guests, made by the tools that guests have, and virtual machines that read them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.repository.config import FORMAT, JobConfig, SourceSection
from backy.repository.repository import Repository

MIB = 2**20
BACKY = [sys.executable, "-c", "from backy.cli.main import main; main()"]


def run(*command: object, text: str | None = None) -> str:
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, input=text).stdout


def make(path: Path, size: int, *mkfs: str, fill: Callable[[Path], None] | None = None) -> Path:
    """Make a file system in a file, and fill it by the kernel."""
    with path.open("wb") as file:
        file.truncate(size * MIB)
    run(*mkfs, path)
    if fill is not None:
        top = path.with_suffix(".top")
        top.mkdir()
        run("mount", "-o", "loop", path, top)
        try:
            fill(top)
        finally:
            run("umount", top)
    return path


def disk(path: Path, parts: list[Path], sector: int = 512) -> Path:
    """Put file systems into partitions of a GPT."""
    starts, end = [], 1
    for part in parts:
        starts.append(end)
        end += part.stat().st_size // MIB
    with path.open("wb") as file:
        file.truncate((end + 1) * MIB)
    lines = [f"start={s * MIB // sector},size={p.stat().st_size // sector}" for s, p in zip(starts, parts, strict=True)]
    device = run("losetup", "--find", "--show", f"--sector-size={sector}", path).strip()
    run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", device, text="\n".join(["label: gpt", *lines, ""]))
    run("losetup", "--detach", device)
    for start, part in zip(starts, parts, strict=True):
        run("dd", f"if={part}", f"of={path}", "bs=1M", f"seek={start}", "conv=notrunc,sparse", "status=none")
    return path


def backed_up(image: Path, directory: Path) -> Path:
    """Make a repository with a revision of an image."""
    config = JobConfig(format=FORMAT, source=SourceSection({"type": "file", "filename": str(image)}))
    repository = Repository.initialize(directory, config)
    Backup(repository, ("test",)).run()
    return directory


def backy(directory: Path, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line, as a user does."""
    command = [*BACKY, "-b", str(directory), "files", *map(str, arguments)]
    return subprocess.run(command, check=check, capture_output=True, text=True)


@pytest.fixture(scope="session", autouse=True)
def _able() -> None:
    """Skip where there is no libguestfs, or nobody may mount what is compared with."""
    absent = [name for name in ("guestfish", "nbdkit", "sfdisk", "sgdisk", "mkfs.xfs") if shutil.which(name) is None]
    if absent or os.geteuid() != 0:
        pytest.skip(f"NOT TESTED: files of guests need root and libguestfs; missing: {absent}")
