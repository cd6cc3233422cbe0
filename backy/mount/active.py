"""Which mounts of backy there are: the kernel knows, so nothing about them is kept anywhere and nothing gets stale."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backy.errors import RepositoryError
from backy.repository.repository import Repository
from backy.repository.revision import Revision

SUBTYPE = "backy"
_TYPE = f"fuse.{SUBTYPE}"
_MOUNT_INFO = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A file system of backy's that is mounted."""

    path: Path
    device: str
    """Numbers of its device, with a colon between them."""
    owner: int
    """Number of the user who mounted it."""


def mounts() -> Iterator[Mount]:
    """Yield all mounts of backy, the newest first."""
    for line in reversed(_MOUNT_INFO.read_text(errors="surrogateescape").splitlines()):
        mount = parse(line)
        if mount is not None:
            yield mount


def parse(line: str) -> Mount | None:
    """Read a line of /proc/self/mountinfo (proc_pid_mountinfo(5)); None if it is not about a mount of backy."""
    about, _, file_system = line.partition(" - ")
    kind, _, options = file_system.split(" ")
    owner = re.search(r"\buser_id=(\d+)", options)
    if kind != _TYPE or owner is None:
        return None
    _, _, device, _, path, *_ = about.split(" ")
    return Mount(Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), path)), device, int(owner[1]))


def read_ahead(mountpoint: Path, size: int) -> bool:
    """Let the kernel read ahead `size` bytes instead of the usual 128 KiB; tell whether it may be asked to.

    Only root may, through sysfs (sysfs-class-bdi): FUSE alone can make it less, not more.
    """
    for mount in mounts():
        if mount.path == mountpoint:
            with suppress(OSError):
                Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").write_text(str(size // 1024))
                return True
    return False


def image_path(repository: Repository, revision: Revision) -> Path:
    """Return the path of a revision's raw image: in the repository if its storage keeps one, else in a mount.

    Raises:
        RepositoryError: neither has one.
    """
    path = repository.raw_path(revision) or mounted_path(repository, revision)
    if path is None:
        raise RepositoryError(
            f"revision {revision.id} has no file: the storage '{revision.storage}' keeps no raw images, and no mount "
            f"shows it; 'backy mount MOUNTPOINT' does, 'backy restore -r {revision.id} TARGET' writes one"
        )
    return path


def mounted_path(repository: Repository, revision: Revision) -> Path | None:
    """Return where a revision can be read as a file; None if no mount has it.

    Ids are unique, so a mount that has this one has the right image. It must be one of root's or our own: anybody may
    mount anything under any name.
    """
    for mount in mounts():
        if mount.owner not in {0, os.geteuid()}:
            continue
        for path in (mount.path / revision.id, mount.path / repository.job.name / revision.id):
            try:
                if path.is_file():
                    return path
            except OSError:
                continue  # its program was killed, or it is not for us
    return None
