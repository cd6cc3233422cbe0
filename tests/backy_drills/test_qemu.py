"""Real guests of libguestfs and QEMU: those that live, those that do not, and what each of them can reach."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.appliance.machine import kernel
from tests.backy_drills import guests

LOOK = "ls /sys/class/net; lspci | cut -d' ' -f2- | sort; lsblk -rno TYPE,NAME; cut -d' ' -f-3 /proc/cmdline"
SEEN = f"""\
lo
Communication controller: Red Hat, Inc. Virtio console
Host bridge: Intel Corporation 82G33/G31/P35/P31 Express DRAM Controller
ISA bridge: Intel Corporation 82801IB (ICH9) LPC Interface Controller (rev 02)
SATA controller: Intel Corporation 82801IR/IO/IH (ICH9R/DO/DH) 6 port SATA Controller [AHCI mode] (rev 02)
SCSI storage controller: Red Hat, Inc. Virtio SCSI
SCSI storage controller: Red Hat, Inc. Virtio block device
SMBus: Intel Corporation 82801I (ICH9 Family) SMBus Controller (rev 02)
Unclassified device [00ff]: Red Hat, Inc. Virtio RNG
disk vda
part vda1
root=UUID={guests.ROOT} ro console=ttyS0
"""
"""What a guest finds: no network, and no device that leads to this machine."""


def files(directory: Path) -> dict[str, tuple[int, int]]:
    """Return what tells whether a file has changed, but for what a drill writes."""
    found = {str(path): path.stat() for path in directory.rglob("*") if ".drill" not in path.name}
    return {name: (one.st_mtime_ns, one.st_size) for name, one in found.items() if not name.endswith("/journal")}


def result(directory: Path) -> dict:
    (path,) = directory.glob("*.drill")
    return json.loads(path.read_text())


def test_a_guest_lives_and_reaches_nothing_of_this_machine(backy, vm: Path, rounds: Callable[[int, int], int]) -> None:
    before = files(vm)
    for _ in range(rounds(1, 20)):
        done = backy("-b", vm, "drill", "--level", "4", "--within", "9m", "--command", LOOK)
        assert (done.code, [line for line in done.err.splitlines() if "KVM" not in line]) == (0, [])
    found = result(vm)
    assert (found["reached"], found["remarks"]) == (4, [])
    assert [name for name, _ in found["signs"]] == ["kernel", "init", "up", "agent", "command"]
    (log,) = vm.glob("*.drill.log")
    evidence = log.read_text(errors="replace")
    assert "$ e2fsck -fn sda1 (ext4): 0\n" in evidence
    assert evidence.endswith(SEEN), evidence[-2000:]
    assert files(vm) == before
    assert backy("-b", vm, "audit").code == 0


@pytest.mark.soak
def test_zeroes_have_no_file_system(backy, able: None, tmp_path: Path, backed_up: Callable[[Path], Path]) -> None:
    image = tmp_path / "zeroes.img"
    image.touch()
    os.truncate(image, 2**26)
    done = backy("-b", backed_up(image), "drill", "--within", "9m")

    assert done.code == 1
    assert "level 2 was not reached: no file system was found; there is sda (unknown)\n" in done.err


@pytest.mark.soak
def test_a_guest_without_its_kernel_is_sound_and_does_not_boot(backy, broken: Callable[..., Path]) -> None:
    vm = broken(lambda tree: (tree / f"boot/vmlinuz-{kernel()}").unlink())
    done = backy("-b", vm, "drill", "--within", "9m")

    assert done.code == 1
    assert f"not reached: /boot/vmlinuz-{kernel()} is missing, which /boot/grub/grub.cfg has to boot\n" in done.err
    assert result(vm)["reached"] == 1
