from __future__ import annotations

import os
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.mount import active
from backy.mount.active import Mount, mounted_path, mounts, parse, read_ahead
from backy.repository.repository import Repository

LINE = "44 27 0:999999 / {path} ro,nosuid,nodev,relatime shared:7 - fuse.backy backy ro,user_id={user},group_id=0"


@pytest.fixture
def info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Let the kernel say that folders are mounts of backy, as `info(path, ...)`."""
    file = tmp_path / "mountinfo"
    file.write_text("")
    monkeypatch.setattr(active, "_MOUNT_INFO", file)

    def tell(*paths: Path, user: int | None = None) -> None:
        user = os.geteuid() if user is None else user
        file.write_text("".join(LINE.format(path=path, user=user) + "\n" for path in paths))

    return tell


@pytest.mark.parametrize(
    ("line", "mount"),
    [
        (LINE.format(path="/mnt", user=0), Mount(Path("/mnt"), "0:999999", 0)),
        (LINE.format(path=r"/a\040b\134c", user=1000), Mount(Path("/a b\\c"), "0:999999", 1000)),
        ("44 27 0:999999 / /mnt ro - fuse.backy backy ro,user_id=7", Mount(Path("/mnt"), "0:999999", 7)),
        ("44 27 0:999999 / /mnt ro - fuse.sshfs backy ro,user_id=0", None),
        ("44 27 0:999999 / /mnt ro - tmpfs fuse.backy ro", None),
        ("44 27 0:999999 / /mnt ro - fuse.backy backy ro", None),
    ],
)
def test_lines_of_mountinfo(line: str, mount: Mount | None) -> None:
    assert parse(line) == mount


def test_this_machine_s_mountinfo_can_be_read() -> None:
    list(mounts())


def test_a_revision_is_found_where_a_mount_shows_it(repository: Repository, tmp_path: Path, info) -> None:
    revision = Backup(repository, ("daily",)).run()
    other, single, several = tmp_path / "other", tmp_path / "single", tmp_path / "several"
    for folder in (other, single, several / "vm"):
        folder.mkdir(parents=True)
    (single / revision.id).touch()
    (several / "vm" / revision.id).touch()

    assert mounted_path(repository, revision) is None
    info(other)
    assert mounted_path(repository, revision) is None
    info(other, single)
    assert mounted_path(repository, revision) == single / revision.id
    info(single, several, other)
    assert mounted_path(repository, revision) == several / "vm" / revision.id


def test_a_mount_of_somebody_else_is_not_believed(repository: Repository, tmp_path: Path, info) -> None:
    revision = Backup(repository, ("daily",)).run()
    (tmp_path / revision.id).touch()
    info(tmp_path, user=os.geteuid() + 1)

    assert mounted_path(repository, revision) is None


def test_a_mount_whose_program_is_gone_is_passed_over(
    repository: Repository, tmp_path: Path, info, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_path: Path) -> bool:
        raise OSError(107, "Transport endpoint is not connected")

    revision = Backup(repository, ("daily",)).run()
    info(tmp_path)
    monkeypatch.setattr(Path, "is_file", gone)

    assert mounted_path(repository, revision) is None


def test_reading_ahead_is_left_as_it_is_where_it_can_not_be_set(tmp_path: Path, info) -> None:
    assert not read_ahead(tmp_path, 2**20)
    info(tmp_path)
    assert not read_ahead(tmp_path, 2**20)
