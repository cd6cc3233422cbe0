"""What QEMU gives to a guest, and what is left of it when backy is killed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backy_drills import machine
from backy_drills.machine import Course, arguments, boot
from backy_files.sandbox import GuestError, Served, served
from tests.appliance.machine import kernel

HELD = """
import sys, time
from pathlib import Path
from backy_drills.machine import Course, arguments, boot
from backy_files.sandbox import served
def show(data): sys.stdout.buffer.write(data) and sys.stdout.flush()
with served({Path(sys.argv[1]): "latest"}) as there:
    (there.folder / "initrd").touch()
    (there.folder / "kernel").symlink_to(sys.argv[2])
    show(f"{there.folder}\\n".encode())
    boot(there, arguments(there, "rdinit=/none", 2**28, scsi=False), None, Course(300, show, time.monotonic))
"""


def given(words: list[str], option: str) -> list[str]:
    """Return what an option is given."""
    return [value for name, value in itertools.pairwise(words) if name == option]


@pytest.mark.parametrize(("kvm", "accelerator"), [(True, "kvm"), (False, "tcg,thread=multi")])
def test_the_guest_has_its_disks_and_nothing_else(kvm: bool, accelerator: str) -> None:
    folder = Path("/tmp/drill")
    there = Served(
        folder, folder / "work", [(f"{folder}/socket0", 512), (f"{folder}/socket1", 4096)], Path("qemu"), folder, kvm
    )
    words = arguments(there, "root=/dev/vda1", 2**30, scsi=False)

    plain = "-nodefaults -no-user-config -no-reboot -display -nic -machine -smp -m -accel -cpu -object -device -serial"
    plain += " -drive -kernel -initrd -append"
    assert {word for word in words if word.startswith("-")} == {*plain.split()}
    limits = [given(words, one) for one in ("-nic", "-m", "-serial", "-accel")]
    assert limits == [["none"], ["1024M"], ["stdio"], [accelerator]]
    assert given(words, "-drive") == [
        f"if=none,id=disk{at},format=raw,snapshot=on,cache=unsafe,file.driver=nbd,file.server.type=unix,"
        f"file.server.path={folder}/socket{at}"
        for at in (0, 1)
    ]
    assert [one.split(",")[0] for one in given(words, "-device")] == [
        *(
            "virtio-rng-pci",
            "virtio-serial-pci",
            "virtserialport",
            "virtio-scsi-pci",
            "virtio-blk-pci",
            "virtio-blk-pci",
        )
    ]
    assert given(words, "-append")[0].startswith("root=/dev/vda1 console=ttyS0 panic=-1 ")


def test_disks_are_those_of_scsi_if_the_guest_calls_them_so() -> None:
    there = Served(Path(), Path(), [("socket0", 512)], Path("qemu"), Path(), kvm=False)
    words = arguments(there, "", 2**30, scsi=True)
    assert "scsi-hd,drive=disk0,logical_block_size=512,physical_block_size=512" in given(words, "-device")


@pytest.fixture
def disk(able: None, tmp_path: Path, backed_up: Callable[[Path], Path]) -> Path:
    """A repository with a disk on which there is nothing."""
    image = tmp_path / "vm.img"
    image.touch()
    os.truncate(image, 2**26)
    return backed_up(image)


def test_a_guest_that_does_nothing_ends_with_its_time(disk: Path) -> None:
    """The clock says that it is over as soon as the kernel has said its second line."""
    seen = bytearray()
    with served({disk: "latest"}) as there:
        (there.folder / "initrd").touch()
        (there.folder / "kernel").symlink_to(f"/boot/vmlinuz-{kernel()}")
        course = Course(100, seen.extend, lambda: 1000.0 * (b"Command line: " in seen))
        # without it, the kernel panics, which could be read together with its first line
        waits = "root=/dev/none rootwait"
        with pytest.raises(GuestError, match=r"^its console says last: "):
            boot(there, arguments(there, waits, 2**28, scsi=False), None, course)
    assert [*course.signs] == ["kernel"]


@pytest.mark.soak
def test_a_kernel_without_a_root_panics_and_is_not_waited_for(disk: Path) -> None:
    seen = bytearray()
    with served({disk: "latest"}) as there:
        (there.folder / "initrd").touch()
        (there.folder / "kernel").symlink_to(f"/boot/vmlinuz-{kernel()}")
        with pytest.raises(GuestError, match=r"the root file system was not mounted: .*VFS: Unable to mount root fs"):
            boot(
                there,
                arguments(there, "root=/dev/vda1", 2**28, scsi=False),
                None,
                Course(300, seen.extend, time.monotonic),
            )
    assert not there.folder.exists()


def test_nothing_is_left_when_backy_is_killed(disk: Path) -> None:
    command = [sys.executable, "-c", HELD, disk, f"/boot/vmlinuz-{kernel()}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as backy:
        assert backy.stdout
        folder = Path(backy.stdout.readline().decode().strip())
        while b"Linux version" not in backy.stdout.readline():
            assert folder.exists()
        assert running(folder)
        backy.send_signal(signal.SIGKILL)
        # who has the other end of its output ends, too
        backy.stdout.read()
    end = time.monotonic() + 60
    while running(folder) or folder.exists():
        assert time.monotonic() < end
        time.sleep(0.05)


ANSWERS = {"guest-exec": {"pid": 3}, "guest-exec-status": {"exited": True, "exitcode": 0, "out-data": "aGk="}}


def lively(console: int, port: socket.socket, asked: list[str], noise: bytes) -> None:
    """Play a guest whose agent answers all, and whose console says something before each answer."""
    with port, port.makefile("rwb") as agent:
        for line in agent:
            words = json.loads(line.rpartition(b"\xff")[2])
            asked.append(words["execute"])
            os.write(console, noise)
            answer = ANSWERS.get(words["execute"], words["arguments"].get("id"))
            agent.write(json.dumps({"return": answer}).encode() + b"\n")
            agent.flush()


def watched(said: bytes, course: Course, noise: bytes = b"") -> list[str]:
    """Watch a lively guest whose console has said something; return what its agent was asked."""
    (read, write), (ours, theirs), asked = os.pipe(), socket.socketpair(), list[str]()
    os.write(write, said)
    ours.setblocking(False)  # as boot() has it
    thread = threading.Thread(target=lively, args=(write, theirs, asked, noise))
    thread.start()
    try:
        machine._watch(read, ours, "true", course)
    finally:
        ours.close()
        thread.join()
        os.close(read)
        os.close(write)
    return asked


def test_a_command_is_run_when_the_guest_is_up_however_much_its_console_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PAUSE", 0.001)
    shown = bytearray()
    course = Course(60, shown.extend, time.monotonic)
    asked = watched(b"Reached target Multi-User System.\n", course, b"noise\n" * 1000)
    assert asked == ["guest-sync-delimited", "guest-exec", "guest-exec-status"]
    assert list(course.signs) == ["kernel", "init", "up", "agent", "command"]
    assert shown.endswith(b"noise\nhi")


def test_an_agent_is_not_asked_before_the_guest_is_up() -> None:
    """A command that succeeds in a guest that does not come up would prove too little."""
    begin, seen = time.monotonic(), bytearray()
    course = Course(100, seen.extend, lambda: begin + 1000 * bool(seen))
    asked = list[str]()
    with pytest.raises(GuestError, match=r"^its console says last: Linux version 6"):
        asked = watched(b"Linux version 6\n", course)
    assert (asked, list(course.signs)) == ([], ["kernel"])


def test_a_fault_ends_the_guest_before_it_can_seem_to_live() -> None:
    course = Course(60, len, time.monotonic)
    with pytest.raises(GuestError, match=r"^the guest is in emergency mode: "):
        watched(b"Linux version 6\nYou are in emergency mode\nvm login: ", course)
    assert list(course.signs) == ["kernel"]


def running(folder: Path) -> list[Path]:
    """Return the processes that have a folder in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path] if str(folder).encode() in path.read_bytes() else []
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since
    return found
