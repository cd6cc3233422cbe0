"""Real guests, made of the files of this machine's Debian packages: systemd as the first process, and QEMU's agent."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.appliance.machine import kernel

PACKAGES = (
    "base-files",
    "bash",
    "dash",
    "coreutils",
    "grep",
    "sed",
    "util-linux",
    "mount",
    "login",
    "systemd-sysv",
    "udev",
)
PACKAGES += ("e2fsprogs", "qemu-guest-agent", "iproute2", "pciutils")
ROOT, DATA = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-aaaaaaaaaaaa"
GRUB = """
set default="0"
menuentry 'Debian GNU/Linux' --class debian {{
	search --no-floppy --fs-uuid --set=root {root}
	linux	/boot/vmlinuz-{version} root=UUID={root} ro  quiet
	initrd	/boot/initrd.img-{version}
}}
menuentry 'Debian GNU/Linux (recovery mode)' {{
	linux	/boot/vmlinuz-{version} root=UUID={root} ro single
}}
"""
MODULES = ("virtio_console",)
"""What is needed of the kernel beside what the initramfs has."""
FOREIGN = ("drivers/net", "drivers/md", "fs/btrfs", "fs/f2fs", "fs/nfs", "lib/raid6", "crypto/async_tx", "net")
"""Modules for what guests here do not have: the initramfs would load some, and measure how to use them best."""


def run(*command: object, check: bool = True) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


def queried(form: str) -> dict[str, str]:
    """Return what dpkg knows of each package that is installed."""
    return dict(line.split("\t", 1) for line in run("dpkg-query", "-W", "-f", f"${{Package}}\t{form}\n").splitlines())


def needed(names: tuple[str, ...]) -> list[str]:
    """Return these packages with all that they depend on."""
    depends = queried("${Pre-Depends}, ${Depends}")
    provided = {
        re.split(r"[ (]", one)[0]: name for name, text in queried("${Provides}").items() for one in text.split(", ")
    }
    found, left = set[str](), list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            every = [[re.split(r"[ :(]", one)[0] for one in group.split(" | ")] for group in depends[name].split(", ")]
            for group in every:
                left += [one for one in (provided.get(one, one) for one in group) if one in depends][:1]
    return sorted(found)


def make_tree(tree: Path) -> str:
    """Make the root of a guest, and return the version of its kernel."""
    version = kernel()
    files = {
        line
        for line in run("dpkg", "-L", *needed(PACKAGES)).splitlines()
        if line.startswith("/") and Path(line).exists()
    }
    files = {file for file in files if not file.startswith(("/usr/share/doc", "/usr/share/man", "/usr/share/locale"))}
    modules = [
        line.split()[-1] for line in run("modprobe", "-S", version, "-D", *MODULES).splitlines() if ".ko" in line
    ]
    files |= {*modules, f"/boot/vmlinuz-{version}"}
    # where the links lead, of which those of the packages make use
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    names = "\n".join(sorted(files)).encode()
    packing = ["tar", "-C", "/", "--no-recursion", "-cf", "-", "-T", "-"]
    packed = subprocess.run(packing, input=names, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    subprocess.run(["tar", "-C", tree, "--keep-directory-symlink", "-xf", "-"], input=packed, check=True)
    run("depmod", "-b", tree, version)
    make_initramfs(tree / f"boot/initrd.img-{version}", tree.with_name("initramfs"))
    for name in ("passwd", "group"):
        shutil.copy(f"/usr/share/base-passwd/{name}.master", tree / f"etc/{name}")
    (tree / "etc/shadow").write_text("root:*:1::::::\n")
    (tree / "etc/hostname").write_text("vm\n")
    (tree / "etc/machine-id").touch()
    (tree / "etc/fstab").write_text(f"UUID={ROOT} / auto errors=remount-ro 0 1\n")
    (tree / "boot/grub").mkdir()
    (tree / "boot/grub/grub.cfg").write_text(GRUB.format(version=version, root=ROOT))
    return version


def make_initramfs(target: Path, unpacked: Path) -> None:
    """Make the initramfs that this machine has of the same version, without modules that are foreign to guests."""
    run("unmkinitramfs", Path("/boot") / target.name, unpacked)
    # what is loaded before, such as microcode, lies beside it
    top = unpacked / "main" if (unpacked / "main").exists() else unpacked
    for name in FOREIGN:
        for folder in top.glob(f"usr/lib/modules/*/kernel/{name}"):
            shutil.rmtree(folder)
    names = "\n".join(str(path.relative_to(top)) for path in [top, *sorted(top.rglob("*"))]).encode()
    packing = ["cpio", "--quiet", "-o", "-H", "newc"]
    packed = subprocess.run(packing, cwd=top, input=names, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["zstd", "-q", "-6", "-o", target], input=packed, check=True)
    shutil.rmtree(unpacked)


def ext4(image: Path, tree: Path) -> Path:
    """Make a disk of a tree: a partition table, and a file system."""
    with image.open("wb") as file:
        file.truncate(2**29)
    subprocess.run(["sfdisk", "-q", image], input=b"label: gpt\nstart=2048, size=1042432, type=L\n", check=True)
    run("mkfs.ext4", "-q", "-F", "-U", ROOT, "-d", tree, "-E", "offset=1048576", image, "509M")
    return image
