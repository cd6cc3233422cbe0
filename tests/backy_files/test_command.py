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
from backy_files.sandbox import GuestError, need
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
    return backed_up(disk(folder / "disk", [part], 4096), folder / "vm")


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
    readers = {child: status(child) for child in children if status(child)["Name"] in {"guestfish", "tar"}}
    (qemu,) = (status(child) for child in children if status(child)["Name"].startswith("qemu-system"))
    assert len(readers) >= 2
    for found in [qemu, *readers.values()]:
        assert found["Uid"] == " ".join([READER] * 4)
        assert found["Gid"] == " ".join([READER] * 4)
        assert (found["Groups"], found["CapEff"], found["CapBnd"], found["NoNewPrivs"]) == ("", "0" * 16, "0" * 16, "1")
    assert qemu["Seccomp"] == "2"
    words = " ".join(Path(f"/proc/{child}/cmdline").read_text() for child in children)
    folders = {Path(name) for name in re.findall(r"/tmp/backy-(?:files|nbd)-\w+", words)}
    assert len(folders) == 2
    return children, folders


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
    words = "cat /folder/file\n-touch /new\n!id -u\n"
    done = subprocess.run(command, input=words, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.split()) == (0, ["content", READER])
    assert "touch: open: /new: Read-only file system" in done.stderr


def test_what_is_encrypted_needs_its_key(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain", 32, "mkfs.ext4", "-q", fill=lambda top: (top / "secret").write_text("kept"))
    secret = ["--object", "secret,id=key,data=right", "-o", "key-secret=key,iter-time=10"]
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "luks", *secret, plain, tmp_path / "disk"]
    # it measures how long a key takes, and gives up where the processor has other work at that moment
    while (done := subprocess.run(convert, check=False, capture_output=True, text=True)).returncode:
        assert "Unable to get accurate CPU usage" in done.stderr
    directory = backed_up(tmp_path / "disk", tmp_path / "vm")
    (tmp_path / "key").write_text("right\n")
    with opened(directory, revision="last") as guest:
        with pytest.raises(GuestError, match="give the passphrase of the encrypted one by --key-file"):
            guest.mount(None)
        with pytest.raises(
            GuestError, match="disk is encrypted by LUKS: give a file with its passphrase by --key-file"
        ):
            guest.mount("disk")
        with pytest.raises(GuestError, match="cryptsetup_open: "):
            guest.unlock("wrong")
        guest.unlock("right")
        guest.mount(None)
        assert {entry.path for entry in guest.entries("/", depth=1)[0]} == {b"", b"lost+found", b"secret"}


def test_a_missing_program_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "PATH", "/nowhere")

    with pytest.raises(BackyError, match=r"^the program setpriv is missing; install Debian's package util-linux$"):
        need("setpriv")


def test_there_is_no_such_revision(directory: Path) -> None:
    done = backy(directory, "ls", "-r", "weekly", "/", check=False)

    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (1, 1, "")
