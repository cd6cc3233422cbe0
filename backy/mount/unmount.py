"""Unmounts, and names the processes and devices that prevent it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from backy.errors import TargetError
from backy.mount.active import mounts


def unmount(mountpoint: Path) -> None:
    """End a mount of backy, and with it the program that answers the kernel.

    Raises:
        TargetError: there is no such mount, or it is in use.
    """
    mountpoint = mountpoint.resolve()
    if all(mount.path != mountpoint for mount in mounts()):
        raise TargetError(f"{mountpoint} has no mount of backy")
    command = ["umount", str(mountpoint)] if os.geteuid() == 0 else ["fusermount3", "-u", str(mountpoint)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  # the path is absolute
    if done.returncode:
        users = sorted({*processes(mountpoint), *loop_devices(mountpoint)})
        by = f" by {', '.join(users)}" if users else ""
        raise TargetError(f"{mountpoint} is in use{by}; nothing is unmounted ({' '.join(done.stderr.split())})")


def processes(folder: Path) -> Iterator[str]:
    """Yield the processes with an open file or their current folder in `folder`, as far as this user may see them."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [process / "cwd", *(process / "fd").iterdir()]
            if any(link.readlink().is_relative_to(folder) for link in links):
                yield f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue  # it has ended meanwhile, or belongs to somebody else


def loop_devices(folder: Path) -> Iterator[str]:
    """Yield the loop devices of files in `folder`."""
    for device in Path("/sys/block").glob("loop*"):
        try:
            file = (device / "loop/backing_file").read_text().strip()
        except OSError:
            continue  # it has no file
        if Path(file).is_relative_to(folder):
            yield f"/dev/{device.name}"
