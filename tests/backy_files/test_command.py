"""The commands as users call them: the rights of what reads a guest, and that nothing is left of it."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import BackyError
from backy_files import sandbox
from backy_files.guest import opened
from backy_files.sandbox import GuestError
from tests.backy_files.conftest import BACKY, MIB, backed_up, backy, disk, make, run

READER = "65533"


def fill(top: Path) -> None:
    (top / "big").write_bytes(random.Random(3).randbytes(8 * MIB))
    (top / "folder").mkdir()
    (top / "folder/file").write_text("content")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a disk whose sectors have 4096 bytes."""
    folder = tmp_path_factory.mktemp("large-sectors")
    part = make(folder / "1", 64, "mkfs.ext4", "-q", "-b", "4096", fill=fill)
    small = make(folder / "2", 32, "mkfs.ext4", "-q", "-b", "1024")
    return backed_up(disk(folder / "disk", [part, small], 4096), folder / "vm")


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def below(process: int) -> set[int]:
    """Return the processes that one has started, and those that these have."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, more = set[int](), {process}
    while more:
        found |= more
        more = {child for child, parent in parents.items() if parent in found} - found
    return found - {process}


def status(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


def test_what_reads_a_guest_has_no_rights_and_ends_with_backy(directory: Path) -> None:
    command = [*BACKY, "-b", str(directory), "files", "cat", "-p", "1", "/big"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            children, folders = looked_at(process)
        finally:
            process.send_signal(signal.SIGKILL)

    wait(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    wait(lambda: not any(folder.exists() for folder in folders))


def looked_at(process: subprocess.Popen[bytes]) -> tuple[set[int], set[Path]]:
    """Look at the rights of all processes of a command that reads a file; return them, and their folders."""
    assert process.stdout
    # nobody reads more, so that all wait
    assert process.stdout.read(1000) == random.Random(3).randbytes(8 * MIB)[:1000]
    children = below(process.pid)
    readers = {child: status(child) for child in children if status(child)["Name"] == "guestfish"}
    (qemu,) = (status(child) for child in children if status(child)["Name"].startswith("qemu-system"))
    assert readers
    for found in [qemu, *readers.values()]:
        assert found["Uid"] == " ".join([READER] * 4)
        assert found["Gid"] == " ".join([READER] * 4)
        assert (found["Groups"], found["CapEff"], found["CapBnd"], found["NoNewPrivs"]) == ("", "0" * 16, "0" * 16, "1")
    assert qemu["Seccomp"] == "2"
    words = " ".join(Path(f"/proc/{child}/cmdline").read_text() for child in children)
    compare_rights(Path(f"/proc/{min(readers)}/environ").read_text(), words)
    folders = {Path(name) for name in re.findall(r"/tmp/backy-(?:files|nbd)-\w+", words)}
    assert len(folders) == 2
    return children, folders


def compare_rights(environment: str, words: str) -> None:
    """Make sure that what reads a guest can not change what reads the next one."""
    settings = dict(setting.split("=", 1) for setting in environment.split("\0") if setting)
    machine, wrapper = (Path(settings[name]) for name in ("LIBGUESTFS_PATH", "LIBGUESTFS_HV"))
    assert f"{machine}/kernel" in words
    kept = {machine, *machine.iterdir(), *machine.parents, wrapper, *wrapper.parents}
    reader = ["setpriv", "--reuid", READER, "--regid", READER, "--clear-groups"]
    assert {name for path in kept for name in run(*reader, "find", path, "-maxdepth", 0, "-writable").split()} == set()
    # all the rest that it may write to is removed with this command
    assert {settings[name] for name in settings if name.endswith(("DIR", "HOME"))} == {settings["HOME"]}
    assert Path(settings["HOME"]).parent.name.startswith("backy-files-")


def test_a_mount_ends_with_the_program_that_serves_it(directory: Path, tmp_path: Path) -> None:
    # what runs as another user can not get to the folder by its path
    (tmp_path / "closed").mkdir(mode=0o700)
    mountpoint = tmp_path / "closed/guest"
    mountpoint.mkdir()
    backy(directory, "mount", "-p", "1", mountpoint)
    (mount,) = (line.split() for line in Path("/proc/mounts").read_text().splitlines() if str(mountpoint) in line)
    (daemon,) = {
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if calls(path, "mount", mountpoint)
    }
    children = below(daemon)
    try:
        assert {"ro", "nosuid", "nodev", "default_permissions"} < set(mount[3].split(","))
        assert (mountpoint / "big").read_bytes() == random.Random(3).randbytes(8 * MIB)
        with pytest.raises(OSError, match="Read-only file system"):
            (mountpoint / "new").touch()
        again = backy(directory, "mount", "-p", "1", mountpoint, check=False)
        assert (again.returncode, again.stderr) == (1, f"Error: {mountpoint} is not empty\n")
        (qemu,) = (found for child in children if (found := status(child))["Name"].startswith("qemu-system"))
        assert (qemu["Uid"], qemu["Seccomp"]) == (" ".join([READER] * 4), "2")
        assert (qemu["CapPrm"], qemu["CapEff"], qemu["CapAmb"], qemu["NoNewPrivs"]) == (*["0" * 16] * 3, "1")
    finally:
        os.kill(daemon, signal.SIGKILL)

    wait(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    wait(lambda: str(mountpoint) not in Path("/proc/mounts").read_text())
    assert list(mountpoint.iterdir()) == []


def calls(path: Path, command: str, mountpoint: Path) -> bool:
    """Tell whether a process has been called by this command of backy, by the path of its command line in /proc."""
    try:
        return {command, str(mountpoint)} < set(path.read_text().split("\0"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_changed_is_told(tmp_path: Path) -> None:
    def before(top: Path) -> None:
        for name in ("kept", "gone", "grown", "same size"):
            (top / name).write_text(name)

    directory = backed_up(make(tmp_path / "disk", 32, "mkfs.ext4", "-q", fill=before), tmp_path / "vm")
    (tmp_path / "disk.top").rename(tmp_path / "mounted")
    run("mount", "-o", "loop", tmp_path / "disk", tmp_path / "mounted")
    try:
        (tmp_path / "mounted/new").write_text("new")
        (tmp_path / "mounted/gone").unlink()
        (tmp_path / "mounted/grown").write_text("longer than before")
        times = (tmp_path / "mounted/same size").stat()
        (tmp_path / "mounted/same size").write_text("SAME SIZE")
        os.utime(tmp_path / "mounted/same size", ns=(times.st_atime_ns, times.st_mtime_ns))
    finally:
        run("umount", tmp_path / "mounted")
    subprocess.run([*BACKY, "-b", str(directory), "backup", "again"], check=True, capture_output=True)

    assert backy(directory, "diff", "test", "again").stdout == "- /gone\n! /grown\n+ /new\n! /same size\n"


def test_guestfish_is_a_shell_for_a_file_system(directory: Path) -> None:
    command = [*BACKY, "-b", str(directory), "files", "shell", "-p", "1"]
    words = "cat /folder/file\n\n!id -u; printf '\\033\\n'\ntouch /new\nls /\n"
    done = subprocess.run(command, input=words, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.split()) == (1, ["content", READER, "\\x1b"])
    assert "touch: open: /new: Read-only file system" in done.stderr


def test_sectors_have_the_size_that_the_disk_has(directory: Path) -> None:
    with opened(directory, revision="last", partition="1", key_file=None) as guest:
        assert guest.kinds == {"/dev/sda": "", "/dev/sda1": "ext4", "/dev/sda2": "ext4"}
        assert guest.script("/folder/file", 'cat "$1"') == (b"content", [])
        # Linux itself reads no blocks that are smaller than a sector
        with pytest.raises(GuestError, match=r"mount_ro: .*wrong fs type, bad option"):
            guest.mount("2")


def test_what_is_encrypted_needs_its_key(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain", 32, "mkfs.ext4", "-q", fill=lambda top: (top / "secret").write_text("kept"))
    secret = ["--object", "secret,id=key,data=right", "-o", "key-secret=key,iter-time=10"]
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "luks", *secret, plain, tmp_path / "disk"]
    # it measures how long a key takes, and gives up where the processor has other work at that moment
    while (done := subprocess.run(convert, check=False, capture_output=True, text=True)).returncode:
        assert "Unable to get accurate CPU usage" in done.stderr
    directory = backed_up(tmp_path / "disk", tmp_path / "vm")
    with opened(directory, revision="last", partition="", key_file=None) as guest:
        told = (
            "^there is no file system{}: choose one by --partition; there are sda .crypto_LUKS.; the right --key-file"
        )
        with pytest.raises(GuestError, match=told.format("")):
            guest.mount(None)
        with pytest.raises(GuestError, match=told.format(" sda")):
            guest.mount("sda")
        guest.unlock("wrong")
        with pytest.raises(GuestError, match=told.format("")):
            guest.mount(None)
        guest.unlock("right")
        guest.mount(None)
        assert guest.script("/secret", 'cat "$1"') == (b"kept", [])


def test_a_missing_program_is_told_with_its_package(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "PATH", "/nowhere")

    with (
        pytest.raises(BackyError, match=r"^the program guestfish is missing; install Debian's package guestfish$"),
        opened(directory, revision="last", partition=None, key_file=None),
    ):
        pass


def test_there_is_no_such_revision(directory: Path) -> None:
    done = backy(directory, "ls", "-r", "weekly", "/", check=False)

    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (1, 1, "")
