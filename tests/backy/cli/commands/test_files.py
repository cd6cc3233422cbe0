from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from backy.repository.repository import Repository


@pytest.fixture(autouse=True)
def precious(backy, repository: Repository, image: Path, tmp_path: Path) -> None:
    """A revision of an ext4 file system with a file in a folder, and a link."""
    (tmp_path / "files/etc").mkdir(parents=True)
    (tmp_path / "files/etc/motd").write_text("precious\n")
    (tmp_path / "files/link").symlink_to("etc/motd")
    image.unlink()
    command = ["mkfs.ext4", "-q", "-F", "-d", tmp_path / "files", image, "8M"]
    subprocess.run(command, check=True, capture_output=True)
    assert backy("-b", repository.directory, "backup", "daily").code == 0


def test_folders_are_listed(backy, repository: Repository) -> None:
    done = backy("-b", repository.directory, "files", "ls", "/")

    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()] == ["drwxr-xr-x", "lrwxrwxrwx", "drwx------"]
    assert done.out.splitlines()[1].endswith(" link -> etc/motd")
    assert backy("-b", repository.directory, "files", "ls", "-r", "daily", "/etc/motd").out.endswith(" motd\n")


def test_files_are_printed_and_copied(backy, repository: Repository, tmp_path: Path) -> None:
    assert backy("-b", repository.directory, "files", "cat", "link").out == "precious\n"
    assert backy("-b", repository.directory, "files", "cp", "-p", "disk", "/etc", tmp_path / "copy").code == 0
    assert (tmp_path / "copy/motd").read_text() == "precious\n"


def test_file_systems_are_listed(backy, repository: Repository) -> None:
    assert backy("-b", repository.directory, "files", "partitions").out.split() == ["disk", "ext", "8.0", "MiB"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cat", "/nothing"], "Error: there is no 'nothing' in '/'\n"),
        (["cat", "/etc"], "Error: 'etc' is no file\n"),
        (
            ["ls", "-p", "9", "/"],
            "Error: there is no file system 9: choose one by --partition; there are disk (ext)\n",
        ),
    ],
)
def test_what_is_not_there_is_told(backy, repository: Repository, arguments: list[str], message: str) -> None:
    done = backy("-b", repository.directory, "files", *arguments)

    assert (done.code, done.out, done.err) == (1, "", message)
