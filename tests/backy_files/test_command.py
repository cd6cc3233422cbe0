"""The commands as users call them: the rights of what reads a guest, and that nothing is left of it."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backy.api import BackyError
from backy_files import sandbox
from backy_files.guest import Guest, opened
from backy_files.sandbox import GuestError
from tests.backy_files.conftest import BACKY, MIB, backed_up, backy, disk, make, run
from tests.backy_files.images import CHANGED, before, change, logical, pooled

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


@pytest.mark.soak
def test_nothing_is_left_of_a_command_that_is_killed_while_it_reads(tmp_path: Path) -> None:
    # the thin pool hides no other volume
    image = pooled(tmp_path, make(tmp_path / "root", 32, "mkfs.ext4", "-q", fill=fill))
    command = [*BACKY, "-b", str(backed_up(image, tmp_path / "vm")), "files", "cat", "-p", "vg/root", "/big"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            # nobody reads more, so that all wait
            assert process.stdout
            assert process.stdout.read(1000) == random.Random(3).randbytes(8 * MIB)[:1000]
            children, places = looked_at(process)
        finally:
            process.send_signal(signal.SIGKILL)

    nothing_is_left(children, places)


def nothing_is_left(children: set[int], places: set[Path]) -> None:
    wait(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    wait(lambda: not any(place.exists() for place in places))


def looked_at(process: subprocess.Popen[Any]) -> tuple[set[int], set[Path]]:
    """Look at the rights of all processes of a command that reads a guest; return them, and their folders."""
    children = below(process.pid)
    readers = {child: status(child) for child in children if status(child)["Name"] == "guestfish"}
    (qemu,) = (status(child) for child in children if status(child)["Name"].startswith("qemu-system"))
    assert readers
    for found in [qemu, *readers.values()]:
        assert found["Uid"] == " ".join([READER] * 4)
        assert found["Gid"] == " ".join([READER] * 4)
        assert (found["Groups"], found["CapEff"], found["CapBnd"], found["NoNewPrivs"]) == ("", "0" * 16, "0" * 16, "1")
    assert qemu["Seccomp"] == "2"
    compare_rights(Path(f"/proc/{min(readers)}/environ").read_text(), words(children))
    return children, folders(children)


def words(children: set[int]) -> str:
    return " ".join(Path(f"/proc/{child}/cmdline").read_text() for child in children)


def folders(children: set[int]) -> set[Path]:
    """Return the folders that processes have for themselves."""
    found = {Path(name) for name in re.findall(r"/tmp/backy-(?:files|nbd)-\w+", words(children))}
    assert len(found) == 2
    return found


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


@pytest.mark.soak
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
    places = folders(children)
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

    nothing_is_left(children, places)
    wait(lambda: str(mountpoint) not in Path("/proc/mounts").read_text())
    assert list(mountpoint.iterdir()) == []


def calls(path: Path, command: str, mountpoint: Path) -> bool:
    """Tell whether a process has been called by this command of backy, by the path of its command line in /proc."""
    try:
        return {command, str(mountpoint)} < set(path.read_text().split("\0"))
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.soak
def test_what_changed_is_told(tmp_path: Path) -> None:
    directory = backed_up(make(tmp_path / "disk", 32, "mkfs.ext4", "-q", fill=before), tmp_path / "vm")
    change(tmp_path / "disk")
    subprocess.run([*BACKY, "-b", str(directory), "backup", "again"], check=True, capture_output=True)

    assert backy(directory, "diff", "test", "again").stdout == CHANGED


def test_a_shell_has_no_rights_and_ends_with_backy(tmp_path: Path) -> None:
    command = [*BACKY, "-b", str(backed_up(logical(tmp_path), tmp_path / "vm")), "files", "shell", "-p", "6"]
    with subprocess.Popen(command, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write("list-partitions\ncat /marker\n\n!id -u; printf '\\033\\n'\n")
            expected = [*(f"/dev/sda{number}" for number in (1, 2, 3, 5, 6)), "I am 6", "", READER, "\\x1b"]
            assert [process.stdout.readline() for _ in expected] == [f"{line}\n" for line in expected]
            children, places = looked_at(process)
        finally:
            process.send_signal(signal.SIGKILL)

    nothing_is_left(children, places)


@pytest.mark.soak
def test_sectors_have_the_size_that_the_disk_has(directory: Path) -> None:
    with opened(directory, revision="last", partition="1", key_file=None) as guest:
        assert guest.kinds == {"/dev/sda": "", "/dev/sda1": "ext4", "/dev/sda2": "ext4"}
        assert guest.script("/folder/file", 'cat "$1"') == (b"content", [])
        # Linux itself reads no blocks that are smaller than a sector
        with pytest.raises(GuestError, match=r"mount_ro: .*wrong fs type, bad option"):
            guest.mount("2")


@pytest.mark.soak
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


def test_the_virtual_machine_is_made_once(directory: Path) -> None:
    """What it is made of has not changed: to make it again takes as long as a third of its boot."""
    made = set[tuple[int, int]]()
    for _ in range(2):
        with sandbox.served({directory: "last"}) as there:
            root = (there.machine / "root").stat()
            made.add((root.st_ino, root.st_mtime_ns))

    assert len(made) == 1


def test_there_is_no_such_revision(directory: Path) -> None:
    done = backy(directory, "ls", "-r", "weekly", "/", check=False)

    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (1, 1, "")


def test_what_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guest, "patience", 0.1)
    (tmp_path / "errors").write_text("guestfish: it is stuck\n")
    ours, theirs = socket.socketpair()
    with (
        (tmp_path / "errors").open("rb") as errors,
        ours,
        theirs,
        pytest.raises(GuestError, match=r"^the virtual machine does not answer: timed out; it is stuck$"),
    ):
        Guest(ours, errors)
