"""Finds the mounts of backy, and ends them. The kernel lists them, so backy keeps no record that could become stale."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from glob import escape
from itertools import chain, product
from pathlib import Path
from typing import NamedTuple

from backy.errors import RepositoryError, TargetError
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.system.links import is_trusted

SUBTYPE = "backy"
REPOSITORY = ".repository"
"""A name that every folder of a repository in a mount has but does not list: a link to the repository's directory."""
_TYPE = f"fuse.{SUBTYPE}"
_MOUNT_INFO = Path("/proc/self/mountinfo")
# The kernel writes blanks and other special characters of a path in octal.
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mounted file system of backy."""

    path: Path
    device: str
    """Major and minor number of its device, with a colon between them."""
    owner: int
    """User id of the user who mounted it."""


def mounts() -> Iterator[Mount]:
    """Yield all mounts of backy, the newest first."""
    yield from filter(None, map(parse, reversed(_MOUNT_INFO.read_text(errors="surrogateescape").splitlines())))


def parse(line: str) -> Mount | None:
    """Return the mount in a line of /proc/self/mountinfo (proc_pid_mountinfo(5)); None if it is not one of backy."""
    # Optional fields end with a dash, so the file system is found behind that and not by its position.
    about, _, file_system = line.partition(" - ")
    kind, _, options = file_system.split(" ")
    owner = re.search(r"\buser_id=(\d+)", options)
    if kind != _TYPE or owner is None:
        return None
    _, _, device, _, path, *_ = about.split(" ")
    return Mount(Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), path)), device, int(owner[1]))


def read_ahead(mountpoint: Path, size: int) -> bool:
    """Make the kernel read ahead `size` bytes instead of 128 KiB; return whether that was possible."""
    # FUSE alone can make it less, not more. Only root may write this file (sysfs-class-bdi).
    for mount in mounts():
        if mount.path == mountpoint:
            with suppress(OSError):
                Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").write_text(str(size // 1024))
                return True
    return False


def image_path(repository: Repository, revision: Revision) -> Path:
    """Return the path of a revision's raw image: in a mount if one shows it, else in the repository.

    Raises:
        RepositoryError: neither has one.
        DamageError: the repository has one that is missing or cut short.
    """
    # Also if there is a mount: its file would be there, and could not be read.
    raw = repository.raw_path(revision)
    # A mount is better, because it checks what it reads, and nobody can write to it.
    path = mounted_path(repository, revision) or raw
    if path is None:
        text = f"revision {revision.id} has no file: its storage keeps no raw images, and no mount shows it"
        ways = f"'backy mount MOUNTPOINT' does, 'backy restore -r {revision.id} TARGET' writes one"
        raise RepositoryError(f"{text}; {ways}")
    return path


def mounted_path(repository: Repository, revision: Revision) -> Path | None:
    """Return the path of a revision in a mount of root or of this user; None if no such mount has it."""
    name, machine = escape(repository.directory.name), escape(repository.directory.parent.name)
    # The folder has another name if the job's directory is reached by a symbolic link. Looking into all takes longer.
    near, far = (Path(), Path(name), Path(machine, name)), (Path("*"), Path("*/*"))
    for mount, folder in chain(product(_trusted(), near), product(_trusted(), far)):
        with suppress(OSError):  # its program was killed, or it is not for us
            for path in mount.path.glob(str(folder / revision.id)):
                if path.is_file() and _shows(path.parent, repository, revision):
                    return path
    return None


def _shows(folder: Path, repository: Repository, revision: Revision) -> bool:
    # ids are unique, but for those of the disks of one machine
    return not revision.group or (folder / REPOSITORY).readlink() == repository.directory.resolve()


def shown_directory(folder: Path) -> Path | None:
    """Return the directory of the repository that `folder`, in a mount, shows; None if it shows none."""
    here = folder.resolve()
    for mount in _trusted():
        for parent in (here, *here.parents):
            if parent.is_relative_to(mount.path):
                with suppress(OSError):
                    return (parent / REPOSITORY).readlink()
    return None


def _trusted() -> Iterator[Mount]:
    """Yield the mounts of root and of this user."""
    # Other users may mount anything under any name.
    return (mount for mount in mounts() if is_trusted(mount.owner))


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
        with suppress(OSError):  # it has ended meanwhile, or belongs to somebody else
            links = [process / "cwd", *(process / "fd").iterdir()]
            if any(link.readlink().is_relative_to(folder) for link in links):
                yield f"process {process.name} ({(process / 'comm').read_text().strip()})"


def loop_devices(folder: Path) -> Iterator[str]:
    """Yield the loop devices of files in `folder`."""
    for device in Path("/sys/block").glob("loop*"):
        with suppress(OSError):  # it has no file
            if Path((device / "loop/backing_file").read_text().strip()).is_relative_to(folder):
                yield f"/dev/{device.name}"
