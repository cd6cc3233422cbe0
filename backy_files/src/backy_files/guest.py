"""A guest's disk as Linux sees it: where file systems are, and what is in them."""

import json
import os
import re
import shlex
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from backy_files.sandbox import GuestError, confined, sandbox
from backy_files.session import Session

_WHOLE: Final = "disk"
"""The name of the disk itself."""
_CONTAINERS: Final = re.compile(r"_member$|^(swap|crypto_LUKS|BitLocker)?$")
"""Kinds of what has no files of its own."""
_INNER: Final = re.compile(r"_t(meta|data)$|-tpool$|_r(meta|image)_\d+$|-(real|cow)$")
"""Names of volumes that LVM makes for others."""
_SYSROOT: Final = "/sysroot"
"""Where the guest's file system is in the virtual machine."""
_FIELDS: Final = r"%y\0%M\0%s\0%T@\0%U %G %C@\0%P\0%l\0"


_TELLING: Final = 16
"""Bytes at the beginning of a name that tell it from others well enough."""
_PLAIN: Final = f"{string.ascii_letters}{string.digits}._-+@,~".encode()
"""Characters that mean nothing in a pattern or a list."""


class Volume(NamedTuple):
    """A part of a disk: a partition, a logical volume, a RAID, what a key opens, or all of it."""

    name: str
    """As Linux has it, without the name of the disk."""
    kind: str
    """The name of the file system, or of what is there instead; empty if it is not known."""
    size: int
    label: str


class Entry(NamedTuple):
    """A file, folder, link, or the like."""

    kind: str
    """One letter, as find(1) has it for `-type`."""
    mode: str
    size: int
    modified: str
    """Seconds since 1970, with a fraction."""
    noted: str
    """Owner, group, and when the file system has noted a change."""
    path: bytes
    """Relative to the folder that was listed; empty for itself."""
    target: bytes

    @property
    def state(self) -> tuple[object, ...]:
        """All that changes if the file is changed; of a folder not that there is something new in it."""
        return (self.mode, self.noted.split()[:2]) if self.kind == "d" else self


class Guest:
    """A revision's disk in a virtual machine."""

    def __init__(self, session: Session, key_file: Path | None = None) -> None:
        self._session = session
        if key_file is not None:
            self.unlock(key_file.read_text().partition("\n")[0])

    def unlock(self, key: str) -> None:
        """Open all that is encrypted and has this key; raise GuestError if nothing has."""
        locked = [volume for volume in self.volumes() if volume.kind == "crypto_LUKS"]
        failed = []
        for volume in locked:
            try:
                name = f"luks-{volume.name}".replace("/", "-")
                self._session.run("cryptsetup-open", device(volume.name), name, key=key)
            except GuestError as error:
                failed.append(str(error))
        if len(failed) == len(locked):
            raise GuestError(failed[0] if failed else "nothing on the disk is encrypted by LUKS: leave out --key-file")
        self._session.run("lvm-scan", "true")

    def volumes(self) -> list[Volume]:
        """Return the parts of the disk."""
        # The first disk may not be the first that the kernel found: libguestfs puts its names right, and so does this.
        script = "udevadm settle; lsblk -J -b -o NAME,TYPE,FSTYPE,LABEL,PARTLABEL,SIZE /dev/disk/by-path/*-scsi-0:0:0:0"
        listed, errors = self._session.script(script)
        if errors:
            raise GuestError(f"the disk can not be looked at: {errors[0]}")
        tree = json.loads(listed)["blockdevices"]
        found: dict[str, Volume] = {}
        for item in _items(tree):
            kind = item["fstype"] or ""
            if (item["type"] == "disk" and not kind) or _INNER.search(item["name"]):
                continue
            name = _name(re.sub(rf"^{tree[0]['name']}(?=\d*$)", "sda", item["name"]), item["type"])
            found[name] = Volume(name, kind, int(item["size"]), item["label"] or item["partlabel"] or "")
        for volume in [volume for volume in found.values() if volume.kind == "btrfs"]:
            names = os.fsdecode(self._session.run("list-filesystems"))
            of = re.escape(f"btrfsvol:{device(volume.name)}/")
            for subvolume in re.findall(rf"^{of}(.+): btrfs$", names, re.MULTILINE):
                name = f"{volume.name}:{subvolume}"
                found[name] = volume._replace(name=name, label="")
        return list(found.values())

    def mount(self, name: str | None) -> None:
        """Mount the file system in a volume, or the only one that there is; raise GuestError if that can not be."""
        self._session.run("umount-all")
        self._session.run("mount-ro", device(self.chosen(name).name), "/")

    def chosen(self, name: str | None) -> Volume:
        """Return the volume of a name, or the only one with a file system.

        Raises:
            GuestError: there is none, or more than one, or it is encrypted.
        """
        volumes = self.volumes()
        plain = [volume for volume in volumes if not _CONTAINERS.search(volume.kind) and ":" not in volume.name]
        fitting = plain if name is None else [volume for volume in volumes if device(volume.name) == device(name)]
        if len(fitting) != 1:
            none = f"there is no file system {name or ''}".strip()
            problem = "there is more than one file system" if fitting else none
            names = ", ".join(f"{volume.name} ({volume.kind or 'unknown'})" for volume in volumes) or "none"
            locked = any(volume.kind == "crypto_LUKS" for volume in volumes) and not fitting
            hint = "; give the passphrase of the encrypted one by --key-file" if locked else ""
            raise GuestError(f"{problem}: choose one by --partition; there are: {names}{hint}")
        if fitting[0].kind == "crypto_LUKS":
            raise GuestError(f"{fitting[0].name} is encrypted by LUKS: give a file with its passphrase by --key-file")
        return fitting[0]

    def real(self, path: str) -> str:
        """Follow all links in a path; raise GuestError if it does not exist."""
        return self._session.run("realpath", f"/{path.lstrip('/')}")[:-1].decode(errors="surrogateescape")

    def entries(self, path: str, depth: int | None = None) -> tuple[list[Entry], list[str]]:
        """Return what is at and below a path without links, and a line for each that can not be read."""
        where = shlex.quote(_SYSROOT + path)
        limit = "" if depth is None else f"-maxdepth {depth} "
        out, errors = self._session.script(f"find {where} {limit}-printf '{_FIELDS}'")
        words = out.split(b"\0")
        rows = [words[start : start + 7] for start in range(0, len(words) - 1, 7)]
        found = [Entry(a.decode(), b.decode(), int(c), d.decode(), e.decode(), f, g) for a, b, c, d, e, f, g in rows]
        return found, [line.replace(_SYSROOT, "").removeprefix("find: ") for line in errors]

    def unreadable(self, path: str) -> list[str]:
        """Return which files at or below a path can not be read, relative to it."""
        # by tar, which spares the way through holes
        silent = '[ -z "$({ tar -Pcf - "$file" | cat >/dev/null; } 2>&1)" ]'
        each = f'for file; do {silent} || printf "%s\\0" "$file"; done'
        where = _SYSROOT + path
        out, _errors = self._session.script(
            f"find {shlex.quote(where)} -type f -exec sh -c {shlex.quote(each)} sh {{}} +"
        )
        return [name[len(where) :].lstrip("/") for name in os.fsdecode(out).split("\0")[:-1]]

    def archive(self, real: str, is_folder: bool, pipe: str, *, xattrs: bool = False) -> list[str]:
        """Feed a script of the shell with an archive of a folder's content, or of one file. Return what went wrong.

        The script has MEMBERS where tar gets the names of what to extract.
        """
        folder, _, file = (real, "", "") if is_folder else real.rpartition("/")
        options = ["xattrs:true"] if xattrs else []
        if not is_folder:
            options.append(f"excludes:{' '.join(_all_but(os.fsencode(file)))}")
            pipe = pipe.replace("MEMBERS", f"--no-unquote -- {shlex.quote(f'./{file}')}")
        try:
            self._session.run("tar-out", folder or "/", "-", *options, pipe=pipe.replace("MEMBERS", ""))
        except GuestError as error:
            return str(error).split("; ")
        return []


def _all_but(name: bytes) -> Iterator[str]:
    """Yield patterns for names in a folder that differ from this one in a plain character, or in length."""
    # tar is then told the very name. This only spares the way for what is beside it.
    known = "./"
    for place, byte in enumerate(name[:_TELLING]):
        if place:
            yield known
        if byte in _PLAIN:
            yield f"{known}[!{chr(byte)}]*"
        known += chr(byte) if byte in _PLAIN else "?"
    if len(name) <= _TELLING:
        yield f"{known}?*"


@contextmanager
def opened(directory: Path, *descriptors: int, revision: str, key_file: Path | None = None) -> Iterator[Guest]:
    """Start a virtual machine with the disk of a revision; scripts get the descriptors, too."""
    with sandbox(directory, revision) as box, Session(box, *descriptors) as session:
        yield Guest(session, key_file)


def shell(directory: Path, revision: str, partition: str | None) -> int:
    """Run guestfish as a shell, with a file system mounted; return its exit code."""
    with sandbox(directory, revision) as box:
        if partition is None:
            with Session(box) as session:
                partition = Guest(session).chosen(None).name
        command = confined("guestfish", *box.drive, "-m", device(partition), group=box.group)
        # Not 1, which leads to standard error.
        where: dict[str, Any] = {"cwd": box.work, "stdout": sys.stdout}
        return subprocess.run(command, check=False, env=box.environment(), **where).returncode  # noqa: S603  # no shell


def device(name: str) -> str:
    """Return what libguestfs calls a volume; the name may also be one that Linux has for it."""
    volume, colon, subvolume = name.partition(":")
    if volume in {_WHOLE, "sda"}:
        path = "/dev/sda"
    elif volume.isdecimal():
        path = f"/dev/sda{volume}"
    else:
        path = f"/dev/mapper/{volume}" if volume.startswith("luks-") else f"/dev/{volume}"
    return f"btrfsvol:{path}/{subvolume}" if colon else path


def _items(tree: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in tree:
        yield item
        yield from _items(item.get("children", []))


def _name(name: str, kind: str) -> str:
    if kind == "lvm":
        # the device mapper doubles dashes, and puts one between group and volume
        group, volume = re.split(r"(?<!-)-(?!-)", name.replace("--", "\0"), maxsplit=1)
        return f"{group}/{volume}".replace("\0", "-")
    return re.sub(r"^sda(?=\d)", "", name) if name != "sda" else _WHOLE
