"""How the guest boots by its own kernel: what the configuration of its boot loader says. The parsing is pure."""

import os
import re
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from backy_files.guest import Guest
from backy_files.sandbox import GuestError

_CONFIGURATIONS: Final = ("/boot/loader/entries/*.conf", "/boot/grub*/grub.cfg")
_LINE: Final = re.compile(r"^\s*(linux|initrd|options)(?:16|efi)?[ \t]+(\S.*)$", re.MULTILINE)
_ROOT: Final = re.compile(r"^\s*([^#\s]\S*)\s+/\s", re.MULTILINE)
_LEFT_OUT: Final = re.compile(r"quiet|splash|rhgb|console=.*|panic=.*|.*\$.*")
"""Words of a command line that hide what is to be seen, or whose values only the boot loader knows."""

_LARGEST: Final = 2**29
"""Bytes of a kernel, or of all that is its initramfs."""
_LINE_MAX: Final = 1800
"""Characters of a command line: a kernel takes 2047, and what a drill adds must be among them."""


def entry_of(text: str) -> tuple[str, list[str], list[str]] | None:
    """Find the first entry of a configuration of GRUB, or of a file of the Boot Loader Specification.

    Returns:
        the kernel, what its initramfs is made of, and the words of its command line.
    """
    first = _LINE.findall("".join(f"\n{text}".split("\nmenuentry")[:2]))
    # of GRUB's `linux` with its words the first one counts; the specification has the other keys several times
    words = next((line.split() for key, line in first if key == "linux"), None)
    more = {name: " ".join(line for key, line in first if key == name).split() for name in ("initrd", "options")}
    return None if words is None else (words[0], more["initrd"], words[1:] + more["options"])


def command_line(words: list[str], fstab: str) -> str:
    """Return a command line without silence, and with the root that fstab names unless it has one."""
    kept = [word for word in words if not _LEFT_OUT.fullmatch(word)]
    if (root := _ROOT.search(fstab)) and not any(word.startswith("root=") for word in kept):
        kept += [f"root={root[1]}", "ro"]
    # no argument of a program can have a NUL
    return " ".join(filter(str.isprintable, kept))[:_LINE_MAX]


def taken_out(guest: Guest, folder: Path) -> tuple[str, bool]:
    """Copy a guest's kernel and its initramfs, empty if there is none, to the files `kernel` and `initrd`.

    Returns:
        the kernel's command line, and whether the guest calls its disks as SCSI has them.

    Raises:
        GuestError: there is no Linux, or a file is missing.
    """
    root = next((one for one in guest.lines("inspect-os") if guest.lines("inspect-get-type", one) == ["linux"]), None)
    if root is None:
        raise GuestError("no Linux was found that could be booted")
    guest.run("umount-all")
    places = dict(line.split(": ", 1) for line in guest.lines("inspect-get-mountpoints", root))
    for place in sorted({"/", "/boot"} & places.keys()):
        guest.run("mount-ro", places[place], place)
    fstab = "".join(_read(guest, path) for path in guest.lines("glob-expand", "/etc/fstab"))
    configuration, (kernel, initrds, options) = _default(guest)
    for name, paths in (("kernel", [kernel]), ("initrd", initrds)):
        # in a folder that only this user can write to: who has taken over libguestfs must not lead it elsewhere
        with (folder / name).open("wb") as file:
            os.fchmod(file.fileno(), 0o644)  # nobody but READER gets into the folder
            for path in paths:
                _copy(guest, path, configuration, file)
    words = command_line(options, fstab)
    return words, "/dev/sd" in words + fstab


def _default(guest: Guest) -> tuple[str, tuple[str, list[str], list[str]]]:
    """Return what the boot loader boots, and the name of its configuration."""
    for pattern in _CONFIGURATIONS:
        # of the entries of the specification, the newest kernel's has the highest number
        names = [name for name in guest.lines("glob-expand", pattern) if "rescue" not in name]
        for name in sorted(names, key=lambda name: [*map(int, re.findall(r"\d+", name))], reverse=True):
            if entry := entry_of(_read(guest, name)):
                return name, entry
    raise GuestError("no configuration of a boot loader was found that could be understood")


def _read(guest: Guest, path: str) -> str:
    return guest.run("read-file", path).decode(errors="replace")


def _copy(guest: Guest, path: str, configuration: str, file: BinaryIO) -> None:
    # a boot loader has paths below the partition, or the subvolume, that it reads
    for place in (path, f"/boot/{path.rpartition('/boot/')[2]}"):
        if guest.lines("is-file", place, "followsymlinks:true") == ["true"]:
            guest.run("download", place, "-", sink=partial(_add, file, path))
            return
    raise GuestError(f"{path} is missing, which {configuration} has to boot")


def _add(file: BinaryIO, path: str, data: bytes) -> None:
    # what libguestfs says of a size is no limit: a guest may have taken it over
    if file.tell() + len(data) > _LARGEST:
        raise GuestError(f"{path} is too large to boot")
    file.write(data)
