"""What a repository's own README says is typed as it stands there, by somebody who needs a disk back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.repository.config import JobConfig, SourceSection, StorageSection
from backy.repository.repository import Repository
from backy.repository.revision import FORMAT

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: loop devices and mounts need root")
UNIT = Path(__file__).parents[2] / "docs/examples/backy-mount.service"
RBD = """#!/bin/sh
# `rbd import FILE POOL/IMAGE`, into a folder
[ "$1" = import ] && exec cp "$2" "$HOME/${3#*/}"
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Type lines into a shell, as `shell(lines)`, and return what they print; the mount in `images` ends by itself."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("NOT TESTED: there is no FUSE")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/rbd").write_text(RBD)
    (tmp_path / "bin/rbd").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"

    def run(lines: str) -> str:
        command = ["bash", "-e", "-o", "pipefail", "-c", lines]
        environment = {"PATH": path, "HOME": str(tmp_path)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    if os.path.ismount(tmp_path / "images"):
        subprocess.run(["umount", "--lazy", tmp_path / "images"], check=True)


def answers(directory: Path, image: Path, storage: str) -> tuple[list[str], bytes, bytes]:
    """Make a repository with two revisions; return the commands in its README and both contents, the older first."""
    config = JobConfig(
        format=FORMAT,
        source=SourceSection({"type": "file", "filename": str(image)}),
        storage=StorageSection.named(storage),
    )
    repository = Repository.initialize(directory, config)
    Backup(repository, ("weekly",)).run()
    older = image.read_bytes()
    with image.open("r+b") as stream:
        stream.write(b"newer")
    Backup(repository, ("daily",)).run()
    readme = (directory / "README").read_text().partition("To restore\n")[2].partition("To copy")[0]
    # Two blanks or more are before a remark.
    lines = [line.strip().partition("  ")[0] for line in readme.splitlines() if line.startswith("    ")]
    assert lines[0] == "mkdir -p IMAGES"
    words = {"IMAGES": "images", "DIRECTORY": directory.name, "SPEC": "weekly"}
    for name, value in words.items():
        lines = [line.replace(name, value) for line in lines]
    return lines, older, image.read_bytes()


@AS_ROOT
@pytest.mark.parametrize("storage", ["chunked", "cow"])
def test_the_answers_of_a_readme_work_as_they_stand_there(
    shell: Callable[[str], str], mount: Callable[..., Path], tmp_path: Path, image: Path, storage: str
) -> None:
    directory = tmp_path / "vm" if storage == "chunked" else mount("btrfs") / "vm"
    if storage == "cow":
        (tmp_path / "vm").symlink_to(directory)
    lines, older, newer = answers(directory, image, storage)
    # The names of folders are completed, as another command may have changed the current one.
    typed: list[str] = []
    expected: dict[str, bytes] = {}
    for number, line in enumerate(lines):
        command = line.replace("TARGET", f"~/out{number}").replace("POOL/IMAGE", f"rbd/out{number}")
        command = command.replace("DISK.qcow2", "~/disk.qcow2").replace("python3 vm", "python3 ~/vm")
        command = command.replace("backy -b vm", "backy -b ~/vm").replace(" mount images", " mount ~/images")
        if command.startswith("zstd"):
            continue  # it takes the id of a chunk
        if command.startswith("backy unmount"):
            command = f"cd; {command}"
        if command.startswith("losetup"):
            command = f'device=$({command}); dd if=$device of=~/out{number} bs=4M status=none; losetup -d "$device"'
        if f"out{number}" in command:
            expected[f"out{number}"] = older if "weekly" in command else newer
        typed.append(command)
    shell("\n".join(["mkdir -p images", *typed]))

    assert len(expected) >= 6
    for name, content in expected.items():
        # A loop device has whole sectors only.
        restored = (tmp_path / name).read_bytes()
        assert restored == content[: len(restored)]
        assert len(content) - len(restored) < 512


def test_the_unit_keeps_the_images_mounted(
    shell: Callable[[str], str], repository: Repository, tmp_path: Path, image: Path
) -> None:
    Backup(repository, ("daily",)).run()
    (tmp_path / "backy.conf").write_text(f"""
global: {{base-dir: {tmp_path}}}
schedules: {{default: {{daily: {{interval: 1d, keep: 9}}}}}}
jobs:
  vm: {{source: {{type: file, filename: {image}}}, schedule: default}}
""")
    lines = [line.partition("=") for line in UNIT.read_text().splitlines() if line.startswith("Exec")]
    replaced = {"/usr/local/bin/": "", "/etc/": f"{tmp_path}/", "/mnt/backy": f"{tmp_path}/images"}
    unit = {}
    for key, _, command in lines:
        for old, new in replaced.items():
            command = command.replace(old, new)  # noqa: PLW2901  # one after the other
        unit[key] = command.removeprefix("-")

    shell(f"{unit['ExecStartPre']}\n{unit['ExecStart']}")
    assert (tmp_path / "images/vm/last").read_bytes() == image.read_bytes()
    # A program that was killed leaves its mount.
    shell(f"pkill -KILL -f 'mount -c {tmp_path}/backy.conf'")
    shell(unit["ExecStopPost"])
    shell(f"{unit['ExecStartPre']}\n{unit['ExecStart']}")
    assert (tmp_path / "images/vm/last").read_bytes() == image.read_bytes()
    shell(unit["ExecStop"])
    assert not os.path.ismount(tmp_path / "images")
