"""Levels 0 and 1: what is found on the disks, and whether it is sound. All of it runs in libguestfs' machine."""

import re
import shlex
from collections.abc import Callable, Iterable
from typing import Final

from backy_files.guest import CONTAINERS, Guest, shown
from backy_files.sandbox import GuestError

_CHECKS: Final = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), "e2fsck -fn"),
    "xfs": "xfs_repair -n",
    "btrfs": "btrfs check --readonly --force",
}
"""The programs that tell whether a file system is sound and change nothing, by kind."""
_MADE_OF: Final = {"LVM2_member": "/dev/(?!mapper/)[^/]+/.*", "linux_raid_member": "/dev/md.*", "swap": ".*"}
"""What devices are called that are made of those of a kind; there is nothing to look into in swap."""
_NOT_SOUND: Final = (b"1", b"4")
"""Exit codes by which a check says what it has found; others say that it did not come to its end."""
_SHOWN: Final = 2**16
"""Bytes that are kept of what a program tells: one that finds much is not sound, whatever comes next."""


def found(guest: Guest, remarks: list[str], evidence: Callable[[bytes], object]) -> dict[str, str]:
    """Return the kinds of the file systems by device; add to `remarks` all that is not looked at.

    Raises:
        GuestError: there is none.
    """
    every = {device: kind for device, kind in guest.kinds.items() if device.startswith("/")}
    there = ", ".join(f"{shown(device)} ({kind or 'unknown'})" for device, kind in every.items()) or "nothing"
    evidence(f"found: {there}\n".encode())
    dark = [device for device, kind in every.items() if _is_dark(device, kind, every)]
    remarks += [f"{shown(device)} ({every[device] or 'unknown'}) was not looked at" for device in dark]
    if systems := {device: kind for device, kind in every.items() if not CONTAINERS.search(kind)}:
        return systems
    raise GuestError(f"no file system was found; there is {there}")


def _is_dark(device: str, kind: str, every: Iterable[str]) -> bool:
    """Return whether nobody looks into a device, nor into one that is made of it."""
    # a disk with partitions is no more than these
    parts = _MADE_OF.get(kind, rf"{re.escape(device)}(p|(?<!\d))\d+")
    return bool(CONTAINERS.search(kind)) and not any(re.fullmatch(parts, other) for other in every)


def check(guest: Guest, systems: dict[str, str], remarks: list[str], evidence: Callable[[bytes], object]) -> None:
    """Check file systems as their journals leave them; add to `remarks` those that no program can check.

    Raises:
        GuestError: one is not sound, or none could be checked.
    """
    unchecked, faults = [], []
    for device, kind in systems.items():
        name = f"{shown(device)} ({kind})"
        try:
            # by that its journal is replayed, in what QEMU keeps of changes
            guest.run("mount", device, "/")
            source = guest.shell("findmnt -nvo SOURCE /sysroot").decode().strip()
            guest.run("umount-all")
        except GuestError as error:
            # if the time is over, or libguestfs has ended, that is no fault of a file system
            guest.run("umount-all")
            faults.append(f"{name} can not be mounted: {error}")
            continue
        if kind not in _CHECKS:
            unchecked.append(f"{name} can be mounted, but no program checks whether it is sound")
            continue
        script = f"{_CHECKS[kind]} {shlex.quote(source)} >/run/check 2>&1; echo $?; head -c {_SHOWN} /run/check"
        code, _, told = guest.shell(script).partition(b"\n")
        evidence(f"\n$ {_CHECKS[kind]} {name}: {code.decode()}\n".encode() + told)
        if code != b"0":
            how = "is not sound" if code in _NOT_SOUND else f"was not checked, the check ended with {code.decode()}"
            faults.append(f"{name} {how}: {' '.join(told.decode(errors='replace').split())[:300]}")
    if faults or len(unchecked) == len(systems):
        raise GuestError("; ".join(faults or unchecked))
    remarks += unchecked
