"""A real file system that is full, or read-only: one clear line, nothing lost, and the way out works."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.durable import sync_file_system_of
from backy.errors import ExitCode
from backy.system.space import RESERVE

MiB = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 24 MiB without blocks reserved for root."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: what happens on a full disk, for only root can mount one; run the tests as root")
    backing = tmp_path / "disk"
    with backing.open("wb") as stream:
        stream.truncate(24 * MiB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", backing], check=True)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    subprocess.run(["mount", "-o", "loop", backing, mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)


def fill(folder: Path) -> None:
    """Take every byte that is left, also what the file system had set aside until it was synced."""
    with (folder / "ballast").open("ab", buffering=0) as stream:
        end = stream.tell()
        for size in (16 * MiB, MiB):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(stream.fileno(), end, size)
                    end += size
        stream.seek(0, os.SEEK_END)
        before = None
        # XFS keeps a few blocks that nobody gets
        while os.statvfs(folder).f_bavail != before:
            before = os.statvfs(folder).f_bavail
            for size in (MiB, 4096, 1):
                with contextlib.suppress(OSError):
                    while stream.write(bytes(size)):
                        pass
            sync_file_system_of(folder)


def make_image(image: Path, seed: int, chunks: float) -> bytes:
    content = random.Random(seed).randbytes(int(chunks * CHUNK_SIZE))
    image.write_bytes(content)
    return content


def restored(backy, directory: Path, target: Path, *options: str) -> bytes:
    result = backy("-b", directory, "restore", "--force", *options, target)
    assert result.code == 0, result.err
    return target.read_bytes()


@pytest.mark.parametrize("durability", ["filesystem", "file", "none", "none\n  share: {mode: hardlink}"])
def test_a_full_disk_fails_backups_but_neither_older_revisions_nor_forget_nor_purge(
    backy, disk: Path, tmp_path: Path, durability: str
) -> None:
    image, directory = tmp_path / "disk.img", disk / "vm"
    if "share" in durability:
        (disk / ".pool").mkdir()
    first = make_image(image, 1, 1)
    assert backy("-b", directory, "init", "file", image).code == 0
    with (directory / "config").open() as stream:
        config = stream.read().replace("type: chunked", f"type: chunked\n  durability: {durability}")
    (directory / "config").unlink()
    (directory / "config").write_text(config)
    assert backy("-b", directory, "backup", "first").code == 0
    second = make_image(image, 2, 1)
    assert backy("-b", directory, "backup", "second").code == 0
    third = make_image(image, 3, 0.9)  # what is freed has to take its folders, too
    fill(disk)

    failed = backy("-b", directory, "backup", "third")
    assert failed.code == ExitCode.FULL
    assert failed.err.count("\n") == 1
    assert "No space left on device" in failed.err
    assert str(directory) in failed.err
    assert restored(backy, directory, tmp_path / "target", "-r", "first") == first
    assert restored(backy, directory, tmp_path / "target", "-r", "second") == second

    fill(disk)
    # the newest one, so that the link to it has to change, too
    for arguments in (("forget", "-r", "second"), ("purge", "--trash")):
        result = backy("-b", directory, *arguments)
        assert (result.code, result.err) == (0, "")
    assert backy("-b", directory, "backup", "third").code == 0
    assert restored(backy, directory, tmp_path / "target", "-r", "first") == first
    assert restored(backy, directory, tmp_path / "target", "-r", "third") == third
    assert not [path for path in directory.rglob("*") if path.name == "tmp" or path.suffix == ".tmp"]


def test_a_disk_that_fills_in_the_middle_of_a_backup_is_left_as_it_was(backy, disk: Path, tmp_path: Path) -> None:
    image, directory = tmp_path / "disk.img", disk / "vm"
    first = make_image(image, 1, 1)
    assert backy("-b", directory, "init", "file", image).code == 0
    assert backy("-b", directory, "backup", "first").code == 0
    make_image(image, 2, 8)

    failed = backy("-b", directory, "backup", "second")

    assert failed.code == ExitCode.FULL
    assert failed.err.count("\n") == 1
    assert "No space left on device" in failed.err
    assert f"{directory}/chunks/" in failed.err
    assert len(list(directory.glob("*.rev"))) == 2
    assert not [path for path in directory.rglob("*") if path.name == "tmp" or path.suffix == ".tmp"]
    assert restored(backy, directory, tmp_path / "target") == first
    assert backy("-b", directory, "purge").code == 0
    make_image(image, 3, 2)
    assert backy("-b", directory, "backup", "third").code == 0


@pytest.mark.parametrize("locks", ["there", "copied without"])
def test_a_read_only_repository_can_be_read_and_says_in_one_line_what_it_can_not_do(
    backy, disk: Path, tmp_path: Path, locks: str
) -> None:
    image, directory = tmp_path / "disk.img", disk / "vm"
    content = make_image(image, 1, 2)
    assert backy("-b", directory, "init", "file", image).code == 0
    identity = backy("-b", directory, "backup", "first").out.split()[0]
    if locks != "there":
        for name in (".backup", ".purge", ".records"):
            (directory / name).unlink()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    status = backy("-b", directory, "status")
    assert (status.code, status.err) == (0, "")
    assert identity[:12] in status.out
    assert backy("-b", directory, "find", "--id").out.strip() == identity
    assert restored(backy, directory, tmp_path / "target") == content
    shutil.copy(image, tmp_path / "unchanged.img")
    for arguments in (("backup", "again"), ("forget", "-r", identity), ("purge",), ("init", "file", image)):
        result = backy("-b", directory, *arguments)
        assert result.code == 1
        assert result.err.count("\n") == 1, result.err
        assert str(directory) in result.err
        assert "Read-only file system" in result.err or arguments[0] == "init"


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "xfs"])
def test_the_reserve_lets_revisions_go_on_a_full_disk(backy, mount, tmp_path: Path, kind: str) -> None:
    folder = mount(kind, 320 * MiB)
    image, directory = tmp_path / "disk.img", folder / "vm"
    make_image(image, 1, 1)
    assert backy("-b", directory, "init", "file", image).code == 0
    with (directory / "config").open() as stream:
        config = stream.read() + "schedule: {daily: {interval: 1s, keep: 1}}\n"
    (directory / "config").unlink()
    (directory / "config").write_text(config)
    for seed in range(2, 6):
        assert backy("-b", directory, "backup", "daily").code == 0
        content = make_image(image, seed, 1)
    fill(folder)

    failed = backy("-b", directory, "backup", "daily")
    assert failed.code == ExitCode.FULL
    # expiry writes how far it has come
    for arguments in (("expire",), ("forget", "-r", "1"), ("purge", "--trash")):
        result = backy("-b", directory, *arguments)
        assert result.code == 0, (arguments, result.err)
    assert (directory / RESERVE).stat().st_blocks * 512 == MiB
    # how many have expired by now is up to the speed of the machine
    assert (directory / ".expired").exists()
    assert len(list(directory.glob("*.map"))) < 4
    sync_file_system_of(folder)
    content = make_image(image, 6, 0.5)  # the reserve is made again of what one revision leaves
    assert backy("-b", directory, "backup", "daily").code == 0
    assert restored(backy, directory, tmp_path / "target") == content


def test_a_backup_does_not_use_the_reserve(backy, disk: Path, tmp_path: Path) -> None:
    image, directory = tmp_path / "disk.img", disk / "vm"
    make_image(image, 1, 1)
    assert backy("-b", directory, "init", "file", image).code == 0
    assert backy("-b", directory, "backup", "daily").code == 0
    fill(disk)
    before = (directory / RESERVE).stat()
    make_image(image, 2, 0.1)
    assert backy("-b", directory, "backup", "daily").code == ExitCode.FULL
    after = (directory / RESERVE).stat()

    assert (after.st_ino, after.st_blocks) == (before.st_ino, before.st_blocks)


def test_the_reserve_has_the_size_in_config(backy, disk: Path, tmp_path: Path) -> None:
    image, directory = tmp_path / "disk.img", disk / "vm"
    make_image(image, 1, 1)
    assert backy("-b", directory, "init", "file", image).code == 0
    (directory / "config").chmod(0o600)
    for size in ("2M", "1M", "0", "999G"):
        with (directory / "config").open("a") as stream:
            stream.write(f"reserve: {size}\n")
        assert backy("-b", directory, "purge").code == 0
        # more than there is can not be kept
        expected = {"2M": 2 * MiB, "1M": MiB}.get(size)
        assert ((directory / RESERVE).stat().st_size if expected else None) == expected
        config = (directory / "config").read_text()
        (directory / "config").write_text(config.replace(f"reserve: {size}\n", ""))
    assert not (directory / RESERVE).exists()
