"""Levels 0 and 1: what is found on the disks, and whether it is sound. All of it runs in libguestfs' machine."""

import shlex
from collections.abc import Callable
from typing import Final

from backy_files.guest import CONTAINERS, Guest, shown
from backy_files.sandbox import GuestError

_CHECKS: Final = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), "e2fsck -fn"),
    "xfs": "xfs_repair -n",
    "btrfs": "btrfs check --readonly --force",
}
"""The programs that tell whether a file system is sound and change nothing, by kind."""
_SHOWN: Final = 2**16
"""Bytes that are kept of what a program tells: one that finds much is not sound, whatever comes next."""


def found(guest: Guest, remarks: list[str]) -> dict[str, str]:
    """Return the kinds of the file systems by device; add to `remarks` what nobody can look into.

    Raises:
        GuestError: there is none.
    """
    every = {device: kind for device, kind in guest.kinds.items() if device.startswith("/")}
    locked = [shown(device) for device, kind in every.items() if kind in {"crypto_LUKS", "BitLocker"}]
    remarks += [f"{name} is encrypted: what is in it was not looked at" for name in locked]
    if systems := {device: kind for device, kind in every.items() if not CONTAINERS.search(kind)}:
        return systems
    there = ", ".join(f"{shown(device)} ({kind or 'unknown'})" for device, kind in every.items())
    raise GuestError(f"no file system was found; there is {there or 'nothing'}")


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
            faults.append(f"{name} can not be mounted: {error}")
            continue
        if kind not in _CHECKS:
            unchecked.append(f"{name} can be mounted, but no program checks whether it is sound")
            continue
        script = f"{_CHECKS[kind]} {shlex.quote(source)} >/run/check 2>&1; echo $?; head -c {_SHOWN} /run/check"
        code, _, told = guest.shell(script).partition(b"\n")
        evidence(f"\n$ {_CHECKS[kind]} {name}: {code.decode()}\n".encode() + told)
        if code != b"0":
            faults.append(f"{name} is not sound: {' '.join(told.decode(errors='replace').split())[:300]}")
    if faults or len(unchecked) == len(systems):
        raise GuestError("; ".join(faults or unchecked))
    remarks += unchecked
