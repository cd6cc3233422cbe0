"""Many guests, for a soak: each kind of root, several disks, a real installation, and each way not to live."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.system.safeyaml import dump_yaml
from tests.backy_drills import guests
from tests.backy_drills.guests import DATA, GRUB, ROOT, run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def data(image: Path) -> Path:
    """Make a disk without partitions."""
    with image.open("wb") as file:
        file.truncate(2**26)
    run("mkfs.ext4", "-q", "-F", "-U", DATA, image)
    return image


def wants_data(tree: Path) -> None:
    with (tree / "etc/fstab").open("a") as fstab:
        fstab.write(f"UUID={DATA} /srv ext4 defaults 0 2\n")


def mounted(image: Path, tree: Path, *making: object) -> Path:
    """Make a disk of a tree whose file system nothing fills that makes it."""
    with image.open("wb") as file:
        file.truncate(2**30)
    run(*making, image)
    top = image.with_suffix(".top")
    top.mkdir()
    run("mount", "-o", "loop", image, top)
    try:
        run("cp", "-a", f"{tree}/.", top)
    finally:
        run("umount", top)
    return image


def xfs(image: Path, tree: Path) -> Path:
    return mounted(image, tree, "mkfs.xfs", "-q", "-m", f"uuid={ROOT}")


@pytest.mark.parametrize("disk", [guests.ext4, xfs], ids=["ext4", "xfs"])
def test_a_guest_boots_whatever_its_root_is(backy, broken: Callable[..., Path], disk: Callable[..., Path]) -> None:
    vm = broken(lambda tree: None, disk)
    assert backy("-b", vm, "drill", "--within", "15m").code == 0


def make_group(folder: Path, **images: Path) -> Path:
    """Return the directory of a machine with disks of these names, backed up."""
    disks = {name: {"source": {"type": "file", "filename": str(image)}} for name, image in images.items()}
    (folder / "web1").mkdir()
    (folder / "web1/config").write_bytes(dump_yaml({"format": 3, "disks": disks}))
    return folder / "web1"


def test_all_disks_of_a_machine_are_there_and_one_alone_is_not_enough(backy, tree: Path, tmp_path: Path) -> None:
    run("cp", "-a", tree, tmp_path / "tree")
    wants_data(tmp_path / "tree")
    root = guests.ext4(tmp_path / "root.img", tmp_path / "tree")
    web1 = make_group(tmp_path, root=root, data=data(tmp_path / "data.img"))
    assert backy("-b", web1, "backup", "daily").code == 0

    looking = ("--level", "4", "--command", f"findmnt -no UUID /srv | grep {DATA}")
    done = backy("-b", web1, "drill", "--within", "15m", *looking)
    assert (done.code, "Error" in done.err) == (0, False)
    assert len([*web1.glob("*/*.drill")]) == len([*web1.glob("*/*.drill.log")]) == 2
    alone = backy("-b", web1 / "root", "drill", "--within", "15m")
    assert alone.code == 1
    assert "level 2 was not reached: the guest is in emergency mode: Timed out waiting for device" in alone.err
    assert "Dependency failed for srv.mount" in alone.err


def test_an_installation_of_debian_boots(backy, able: None, tmp_path: Path, backed_up: Callable[[Path], Path]) -> None:
    tree, packages = tmp_path / "tree", "systemd-sysv,udev,linux-image-cloud-amd64"
    run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", tree)
    version = next((tree / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
    (tree / "boot/grub").mkdir()
    (tree / "boot/grub/grub.cfg").write_text(GRUB.format(version=version, root=ROOT))
    (tree / "etc/fstab").write_text(f"UUID={ROOT} / xfs defaults 0 1\n")
    shutil.rmtree(tree / "var/cache/apt")
    done = backy("-b", backed_up(xfs(tmp_path / "vm.img", tree)), "drill", "--within", "15m")
    assert (done.code, "Error" in done.err) == (0, False)


def rewritten(old: str, new: str) -> Callable[[Path], object]:
    """Return what replaces a text in the configuration of GRUB."""
    name = "boot/grub/grub.cfg"
    return lambda tree: (tree / name).write_text((tree / name).read_text().replace(old, new))


BROKEN = {
    "no initramfs": (rewritten("initrd", "#initrd"), "the root file system was not mounted: VFS: Unable to mount root"),
    "another root": (
        rewritten(ROOT, DATA),
        f"the root file system was not mounted: ALERT!  UUID={DATA} does not exist",
    ),
    "no init": (lambda tree: (tree / "sbin/init").unlink(), "the kernel panics: Attempted to kill init!"),
    "no configuration": (lambda tree: shutil.rmtree(tree / "boot/grub"), "no configuration of a boot loader was found"),
    "no root": (lambda tree: shutil.rmtree(tree / "etc"), "no Linux was found that could be booted"),
}


@pytest.mark.parametrize(("change", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_guest_is_told_with_the_reason(backy, broken: Callable[..., Path], change, reason: str) -> None:
    done = backy("-b", broken(change), "drill", "--within", "15m")
    assert done.code == 1
    assert f"level 2 was not reached: {reason}" in done.err


def test_a_damaged_file_system_is_not_sound(backy, tree: Path, tmp_path: Path, backed_up: Callable) -> None:
    image = guests.ext4(tmp_path / "vm.img", tree)
    with image.open("r+b") as file:
        # the bitmaps of the first group say that nothing is in use
        for block in range(130, 180):
            file.seek(2**20 + block * 1024)
            file.write(bytes(1024))
    done = backy("-b", backed_up(image), "drill", "--level", "1", "--within", "15m")
    assert done.code == 1
    assert "sda1 (ext4) is not sound: " in done.err or "sda1 (ext4) can not be mounted" in done.err


def test_what_no_program_checks_is_told(backy, able: None, tmp_path: Path, backed_up: Callable) -> None:
    image = tmp_path / "vm.img"
    with image.open("wb") as file:
        file.truncate(2**26)
    run("mkfs.vfat", image)
    done = backy("-b", backed_up(image), "drill", "--level", "1", "--within", "15m")
    assert "level 1 was not reached: sda (vfat) can be mounted, but no program checks whether it is sound" in done.err


def test_the_time_ends_whatever_the_guest_does(backy, broken: Callable[..., Path]) -> None:
    def hang(tree: Path) -> None:
        (tree / "sbin/init").unlink()
        (tree / "sbin/init").write_text("#!/bin/sh\nexec sleep 100000\n")
        (tree / "sbin/init").chmod(0o755)

    vm = broken(hang)
    done = backy("-b", vm, "drill", "--within", "4m")
    (path,) = vm.glob("*.drill")
    found = json.loads(path.read_text())
    assert "level 2 was not reached: the time is over: " in done.err
    assert (found["reached"], found["signs"][-1][0]) == (1, "kernel")
    assert found["seconds"] < 250
