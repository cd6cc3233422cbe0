"""What the appliance starts with: busybox, the modules that lead to this machine's files, and a script."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

FIRST = ("virtio_pci", "virtio_blk", "virtio_console", "virtiofs", "overlay")
"""Modules that are needed before the files of this machine are there; others are loaded by modprobe."""

_INIT = """\
#!/bin/busybox sh
set -e
for program in mkdir mount insmod switch_root; do /bin/busybox ln -s busybox /bin/$program; done
mkdir -p /dev /lower /memory /root
mount -t devtmpfs dev /dev
for module in {modules}; do insmod /modules/$module; done
mount -t virtiofs -o ro root /lower
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work root /root
mount -t devtmpfs dev /root/dev
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t tmpfs run /root/run
mkdir -p {shared_in_root} /root/run/lock /root/dev/shm
mount -t virtiofs shared {shared_in_root}
mount -t tmpfs shm /root/dev/shm
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec switch_root /root {agent}
"""


def modules(kernel: str, names: Iterable[str]) -> list[Path]:
    """Return the files of modules and of what they need, in the order of loading."""
    shown = (_output("modprobe", "--show-depends", "--set-version", kernel, name) for name in names)
    lines = [line.split() for text in shown for line in text.decode().splitlines()]
    return list(dict.fromkeys(Path(line[1]) for line in lines if line[0] == "insmod"))


def make(target: Path, kernel: str, shared: Path, agent: str) -> None:
    """Write an initramfs.

    Args:
        target: The file to write; a folder beside it is used.
        kernel: Version of the kernel.
        shared: Folder of this machine that the guest has at the same place, writable.
        agent: Command that the guest runs at the end.
    """
    tree = target.with_name(f"{target.name}.tree")
    (tree / "bin").mkdir(parents=True)
    (tree / "modules").mkdir()
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    files = modules(kernel, FIRST)
    for file in files:
        shutil.copy(file, tree / "modules")
    script = _INIT.format(modules=" ".join(file.name for file in files), shared_in_root=f"/root{shared}", agent=agent)
    (tree / "init").write_text(script)
    (tree / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in [tree, *sorted(tree.rglob("*"))])
    target.write_bytes(_output("cpio", "--quiet", "-o", "-H", "newc", folder=tree, text=names))
    shutil.rmtree(tree)


def _output(*command: str, folder: Path | None = None, text: str = "") -> bytes:
    ended = subprocess.run(command, cwd=folder, input=text.encode(), stdout=subprocess.PIPE, check=True)
    return ended.stdout
