"""A real mount, looked at by the tools that it is for."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, identify
from backy.backup.backup import Backup
from backy.mount.active import mounts
from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.sealed import FORMAT
from backy.retention.purge import purge

MIB = 2**20
ROOT_NEEDED = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: loop devices need root")


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount as `fuse(repository, *options)`, in the foreground of a process whose log is in `log`."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("NOT TESTED: there is no FUSE")
    running: list[tuple[subprocess.Popen[bytes], Path]] = []

    def mount(repository: Repository, *options: str) -> Path:
        folder = tmp_path / f"mount{len(running)}"
        folder.mkdir()
        command = [Path(sys.executable).parent / "backy", "-b", repository.directory, "mount", "-f", *options, folder]
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(command, stderr=log)
        running.append((process, folder))
        until(lambda: os.path.ismount(folder) or process.poll() is not None)
        assert os.path.ismount(folder), (tmp_path / "log").read_text()
        return folder

    yield mount
    for process, folder in running:
        process.terminate()
        process.wait(30)
        if os.path.ismount(folder):
            subprocess.run(["umount", "--lazy", folder], check=False)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def output(*command: object) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@pytest.fixture
def file_system(tmp_path: Path) -> Path:
    """A disk with one partition, an ext4 file system of 60 MiB with a file."""
    partition, disk = tmp_path / "partition", tmp_path / "disk.img"
    files = tmp_path / "files"
    files.mkdir()
    (files / "precious.txt").write_text("precious")
    (files / "random").write_bytes(random.Random(0).randbytes(9 * MIB))
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", files, partition, "60M"], check=True, capture_output=True)
    with disk.open("wb") as stream:
        stream.truncate(64 * MIB)
        stream.seek(MIB)
        stream.write(partition.read_bytes())
    subprocess.run(["sfdisk", "-q", disk], input=b"start=2048, type=83\n", check=True)
    return disk


@pytest.fixture
def disk(tmp_path: Path, file_system: Path) -> Repository:
    config = JobConfig(format=FORMAT, source=SourceSection({"type": "file", "filename": str(file_system)}))
    made = Repository.initialize(tmp_path / "vm", config)
    Backup(made, ("daily",)).run()
    return made


@ROOT_NEEDED
def test_the_tools_of_the_trade_work_on_a_mounted_image(
    fuse, disk: Repository, file_system: Path, tmp_path: Path
) -> None:
    folder = fuse(disk)
    image = folder / "last"

    assert output("dd", f"if={image}", "bs=4M", "status=none", f"of={tmp_path / 'copy'}") == ""
    assert digest(tmp_path / "copy") == digest(file_system) == digest(image)
    assert "identical" in output("qemu-img", "compare", "-f", "raw", "-F", "raw", image, file_system)
    partition = f"{image}?offset=1048576"
    assert "precious.txt" in output("debugfs", "-R", "ls", partition)
    output("e2fsck", "-fn", partition)

    device = Path(output("losetup", "--find", "--show", "--read-only", f"--offset={MIB}", image).strip())
    try:
        (tmp_path / "inside").mkdir()
        subprocess.run(["mount", "-o", "ro", device, tmp_path / "inside"], check=True)
        try:
            assert (tmp_path / "inside/precious.txt").read_text() == "precious"
        finally:
            subprocess.run(["umount", tmp_path / "inside"], check=True)
        refused = subprocess.run(
            [Path(sys.executable).parent / "backy", "unmount", folder], check=False, capture_output=True, text=True
        )
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"Error: {folder} is in use by {device}; nothing is unmounted")
        assert refused.stderr.count("\n") == 1
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_an_image_is_as_sparse_as_its_map(fuse, repository: Repository, image: Path, tmp_path: Path) -> None:
    Backup(repository, ("daily",)).run()
    path = fuse(repository) / "last"
    with path.open("rb") as stream:
        assert os.lseek(stream.fileno(), 0, os.SEEK_HOLE) == CHUNK_SIZE
        assert os.lseek(stream.fileno(), CHUNK_SIZE, os.SEEK_DATA) == 2 * CHUNK_SIZE
    subprocess.run(["cp", "--sparse=auto", path, tmp_path / "copy"], check=True)

    assert path.stat().st_blocks <= image.stat().st_blocks
    assert (tmp_path / "copy").stat().st_blocks <= image.stat().st_blocks
    assert (tmp_path / "copy").read_bytes() == image.read_bytes()
    assert path.stat().st_mtime == repository.records.history()[0].timestamp.timestamp()


def test_a_mount_can_not_be_written_to(fuse, repository: Repository) -> None:
    Backup(repository, ("daily",)).run()
    folder = fuse(repository)

    for change in (lambda: (folder / "last").open("r+b"), (folder / "new").touch):
        with pytest.raises(OSError, match="Read-only file system"):
            change()


def test_find_prints_where_a_revision_is_mounted(fuse, backy, repository: Repository) -> None:
    old = Backup(repository, ("weekly",)).run()
    Backup(repository, ("daily",)).run()
    assert backy("-b", repository.directory, "find", "-r", "weekly").code == 1
    folder = fuse(repository)

    assert backy("-b", repository.directory, "find", "-r", "weekly").out == f"{folder / old.id}\n"
    assert backy("unmount", folder).code == 0
    assert backy("-b", repository.directory, "find", "-r", "weekly").code == 1


def test_all_jobs_of_a_server_are_mounted_together(fuse, backy, repository: Repository, tmp_path: Path) -> None:
    revision = Backup(repository, ("daily",)).run()
    (tmp_path / "backy.conf").write_text(f"""
global: {{base-dir: {tmp_path}}}
schedules: {{default: {{daily: {{interval: 1d, keep: 9}}}}}}
jobs:
  vm: {{source: {{type: file, filename: {tmp_path}/disk.img}}, schedule: default}}
  new: {{source: {{type: file, filename: {tmp_path}/new.img}}, schedule: default}}
""")
    folder = fuse(repository, "-c", str(tmp_path / "backy.conf"))

    assert [path.name for path in folder.iterdir()] == ["vm"]
    assert (folder / "vm/last").read_bytes() == (tmp_path / "disk.img").read_bytes()
    assert backy("-b", repository.directory, "find").out == f"{folder / 'vm' / revision.id}\n"


def test_a_mount_in_the_background_is_there_when_the_command_ends(
    repository: Repository, image: Path, tmp_path: Path, spoil
) -> None:
    revision = Backup(repository, ("daily",)).run()
    spoil(repository, revision, 0)
    (tmp_path / "mounted").mkdir()
    backy = Path(sys.executable).parent / "backy"
    output(backy, "-l", tmp_path / "log", "-b", repository.directory, "mount", tmp_path / "mounted")
    try:
        with (tmp_path / "mounted/last").open("rb") as stream, pytest.raises(OSError, match="Input/output error"):
            stream.read(1)
        again = subprocess.run([backy, "mount", tmp_path / "mounted"], check=False, capture_output=True, text=True)
    finally:
        output(backy, "unmount", tmp_path / "mounted")

    assert "ERROR vm: revision" in (tmp_path / "log").read_text()
    assert again.returncode == 1


def test_sigterm_ends_a_mount_even_while_it_is_in_use(fuse, repository: Repository, tmp_path: Path) -> None:
    Backup(repository, ("daily",)).run()
    folder = fuse(repository)
    with (folder / "last").open("rb"):
        process = next(int(line) for line in output("pgrep", "-f", f"mount -f {folder}").split())
        os.kill(process, signal.SIGTERM)
        until(lambda: not os.path.ismount(folder))
    until(lambda: (tmp_path / "log").read_text().endswith("was unmounted while 1 file was open\n"))
    assert "Error" not in (tmp_path / "log").read_text()
    assert folder not in [mount.path for mount in mounts()]


@pytest.mark.parametrize("directory", ["mount", "mount/vm", "mount/vm/by-tag/weekly"])
def test_find_works_in_a_mount_as_in_a_repository(
    fuse, backy, repository: Repository, tmp_path: Path, directory: str
) -> None:
    weekly = Backup(repository, ("weekly",)).run()
    daily = Backup(repository, ("daily",)).run()
    (tmp_path / "backy.conf").write_text(f"""
global: {{base-dir: {tmp_path}}}
schedules: {{default: {{weekly: {{interval: 7d, keep: 9}}}}}}
jobs:
  vm: {{source: {{type: file, filename: {tmp_path}/disk.img}}, schedule: default}}
""")
    (tmp_path / "mount").symlink_to(fuse(repository, "-c", str(tmp_path / "backy.conf")))
    found = [backy("-b", tmp_path / directory, "find", *words) for words in (["-r", "weekly"], [])]

    if directory == "mount":
        # It shows several repositories.
        assert [done.code for done in found] == [1, 1]
    else:
        folder = (tmp_path / "mount/vm").resolve()
        assert [done.out for done in found] == [f"{folder / weekly.id}\n", f"{folder / daily.id}\n"]
    assert ".repository" not in [path.name for path in (tmp_path / "mount/vm").iterdir()]


def test_find_finds_a_job_whose_directory_is_a_link(fuse, backy, repository: Repository, tmp_path: Path) -> None:
    revision = Backup(repository, ("daily",)).run()
    (tmp_path / "web1").symlink_to("vm")
    (tmp_path / "backy.conf").write_text(f"""
global: {{base-dir: {tmp_path}}}
schedules: {{default: {{daily: {{interval: 1d, keep: 9}}}}}}
jobs:
  web1: {{source: {{type: file, filename: {tmp_path}/disk.img}}, schedule: default}}
""")
    folder = fuse(repository, "-c", str(tmp_path / "backy.conf"))

    for directory in ("web1", "vm"):
        assert backy("-b", tmp_path / directory, "find").out == f"{folder}/web1/{revision.id}\n"


def test_find_prefers_a_mount_to_a_raw_image(fuse, backy, mount, image: Path) -> None:
    directory = mount("btrfs") / "vm"
    backy("-b", directory, "init", "file", image, "--storage", "cow")
    backy("-b", directory, "backup", "daily")
    repository = Repository.open(directory)
    revision = repository.records.history()[0]
    folder = fuse(repository)

    assert backy("-b", directory, "find").out == f"{folder / revision.id}\n"
    assert backy("unmount", folder).code == 0
    assert backy("-b", directory, "find").out == f"{directory / revision.id}\n"


@pytest.mark.parametrize("missing", ["file", "there"])
def test_a_mountpoint_that_is_none_is_told(backy, repository: Repository, tmp_path: Path, missing: str) -> None:
    (tmp_path / "file").touch()
    done = backy("-b", repository.directory, "mount", tmp_path / missing)

    assert (done.code, done.err) == (1, f"Error: {tmp_path / missing} is no folder; make it first\n")


def test_what_is_mounted_already_is_told(fuse, backy, repository: Repository) -> None:
    folder = fuse(repository)
    done = backy("-b", repository.directory, "mount", folder)

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"{folder} has a mount of backy already; 'backy unmount {folder}' ends it" in done.err


def test_what_is_not_mounted_can_not_be_unmounted(backy, tmp_path: Path) -> None:
    done = backy("unmount", tmp_path)

    assert (done.code, done.err) == (1, f"Error: {tmp_path} has no mount of backy\n")


def test_a_mount_whose_program_was_killed_can_be_unmounted(fuse, backy, repository: Repository) -> None:
    folder = fuse(repository)
    os.kill(next(int(line) for line in output("pgrep", "-f", f"mount -f {folder}").split()), signal.SIGKILL)

    done = backy("-b", repository.directory, "mount", folder)
    assert "has a mount of backy already" in done.err
    assert backy("unmount", folder).code == 0


def test_a_hundred_readers_get_every_bit(fuse, repository: Repository, image: Path, clock, rounds) -> None:
    """They read pieces of all sizes at all places of three revisions, with less cache than one of them takes."""
    contents: dict[Path, bytes] = {}
    folder = fuse(repository, "--cache", "8")
    for seed in range(3):
        with image.open("r+b") as stream:
            stream.seek(seed * CHUNK_SIZE)
            stream.write(random.Random(seed).randbytes(CHUNK_SIZE // 2))
        contents[folder / Backup(repository, ("daily",), clock=clock).run().id] = image.read_bytes()

    def read(seed: int) -> None:
        chance = random.Random(seed)
        path = chance.choice(list(contents))
        with path.open("rb", buffering=0) as stream:
            for _ in range(rounds(10, 300)):
                offset, length = chance.randrange(image.stat().st_size), chance.choice([1, 512, 4096, 300_000, 2 * MIB])
                stream.seek(offset)
                piece = stream.read(length)
                assert piece == contents[path][offset : offset + len(piece)]
                assert piece or not length

    with ThreadPoolExecutor(100) as pool:
        list(pool.map(read, range(100)))


def test_only_the_bytes_of_damaged_chunks_can_not_be_read(fuse, repository: Repository, image: Path, spoil) -> None:
    revision = Backup(repository, ("daily",)).run()
    spoil(repository, revision, 2)
    content = image.read_bytes()
    with (fuse(repository) / "last").open("rb", buffering=0) as stream:
        readable = bytearray()
        for offset in range(0, len(content), 128 * 1024):
            try:
                readable += os.pread(stream.fileno(), 128 * 1024, offset)
            except OSError as error:
                readable += (b"?" if error.errno == errno.EIO else b"!") * (128 * 1024)

    assert readable == content[: 2 * CHUNK_SIZE] + b"?" * (2 * CHUNK_SIZE) + content[4 * CHUNK_SIZE :]


def test_backups_expiry_and_purges_go_on_under_the_eyes_of_readers(
    fuse, repository: Repository, image: Path, clock, rounds
) -> None:
    """Whatever a reader gets is right, to the last byte, or an error that tells that the revision is gone."""
    ids: dict[str, list[bytes]] = {}
    folder = fuse(repository, "--cache", "0")

    def backup(seed: int) -> Revision:
        with image.open("r+b") as stream:
            stream.seek(random.Random(seed).randrange(4 * CHUNK_SIZE))
            stream.write(random.Random(seed).randbytes(50_000))
        content = image.read_bytes()
        revision = Backup(repository, ("daily",), clock=clock).run()
        ids[revision.id] = [identify(content[at : at + CHUNK_SIZE]) for at in range(0, len(content), CHUNK_SIZE)]
        return revision

    def read_all(path: Path) -> int:
        try:
            with path.open("rb", buffering=0) as stream:
                for index, identity in enumerate(ids[path.name]):
                    piece = b"".join(
                        iter(lambda end=index + 1: stream.read(min(MIB, end * CHUNK_SIZE - stream.tell())), b"")
                    )
                    assert identify(piece) == identity
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ESTALE}:
                raise
            return 0
        return 1

    kept = [backup(0)]
    with ThreadPoolExecutor(4) as pool:
        for seed in range(1, rounds(6, 60)):
            kept.append(backup(seed))
            reading = [pool.submit(read_all, folder / revision.id) for revision in kept]
            if len(kept) > 2:
                repository.remove(kept.pop(0).id)
                purge(repository)
            assert sum(future.result() for future in reading) >= len(kept)
    assert {path.name for path in folder.iterdir() if path.is_file() and not path.is_symlink()} == {
        revision.id for revision in kept
    }
