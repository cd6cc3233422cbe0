"""How the guest boots by its own kernel: what the configuration of its boot loader says. The parsing is pure."""

import re
from pathlib import Path
from typing import Final, NamedTuple

from backy_files.guest import Guest
from backy_files.sandbox import GuestError

_CONFIGURATIONS: Final = ("/boot/loader/entries/*.conf", "/boot/grub*/grub.cfg")
_LINE: Final = re.compile(r"^\s*(linux|initrd|options)(?:16|efi)?[ \t]+(\S.*)$", re.MULTILINE)
_ROOT: Final = re.compile(r"^\s*([^#\s]\S*)\s+/\s", re.MULTILINE)
_LEFT_OUT: Final = re.compile(r"quiet|splash|rhgb|console=.*|panic=.*|.*\$.*")
"""Words of a command line that hide what is to be seen, or whose values only the boot loader knows."""


class Entry(NamedTuple):
    """What a boot loader boots by default."""

    kernel: str
    initrds: list[str]
    words: list[str]
    """The kernel's command line."""


class Bootable(NamedTuple):
    """How a guest boots whose kernel was taken out."""

    words: str
    """The kernel's command line."""
    scsi: bool
    """Whether the guest calls its disks as SCSI has them."""


def entry_of(text: str) -> Entry | None:
    """Return the first entry of a configuration of GRUB, or of a file of the Boot Loader Specification."""
    first = "".join(f"\n{text}".split("\nmenuentry")[:2])
    found = dict(reversed(_LINE.findall(first)))
    if "linux" not in found:
        return None
    kernel, *words = found["linux"].split()
    return Entry(kernel, found.get("initrd", "").split(), [*words, *found.get("options", "").split()])


def command_line(words: list[str], fstab: str) -> str:
    """Return a command line without silence, and with the root that fstab names unless it has one."""
    kept = [word for word in words if not _LEFT_OUT.fullmatch(word)]
    if (root := _ROOT.search(fstab)) and not any(word.startswith("root=") for word in kept):
        kept += [f"root={root[1]}", "ro"]
    return " ".join(kept)


def taken_out(guest: Guest, folder: Path) -> Bootable:
    """Copy a guest's kernel and its initramfs, empty if there is none, to the files `kernel` and `initrd`.

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
    fstab = _read(guest, "/etc/fstab") if _is_file(guest, "/etc/fstab") else ""
    name, entry = _default(guest)
    with (folder / "initrd").open("wb") as initrd:
        for path in entry.initrds:
            initrd.write(_copied(guest, path, name, folder / "part").read_bytes())
    _copied(guest, entry.kernel, name, folder / "kernel")
    words = command_line(entry.words, fstab)
    return Bootable(words, "/dev/sd" in words + fstab)


def _default(guest: Guest) -> tuple[str, Entry]:
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


def _is_file(guest: Guest, path: str) -> bool:
    return guest.lines("is-file", path, "followsymlinks:true") == ["true"]


def _copied(guest: Guest, path: str, configuration: str, target: Path) -> Path:
    # a boot loader has paths below the partition, or the subvolume, that it reads
    for place in (path, f"/boot/{path}", f"/boot/{path.rpartition('/')[2]}"):
        if _is_file(guest, place):
            guest.run("download", place, str(target))
            return target
    raise GuestError(f"{path} is missing, which {configuration} has to boot")
