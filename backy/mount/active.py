"""Finds the mounts of backy. The kernel lists them, so backy keeps no record that could become stale."""

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
    for line in reversed(_MOUNT_INFO.read_text(errors="surrogateescape").splitlines()):
        mount = parse(line)
        if mount is not None:
            yield mount


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
    """Return the path of a revision in a mount of root or of this user; None if no such mount has it."""
    for mount in mounts():
        # Other users may mount anything under any name.
        if mount.owner not in {0, os.geteuid()}:
            continue
        # Ids are unique, so a file with this name is the right image.
        for path in (mount.path / revision.id, mount.path / repository.job.name / revision.id):
            try:
                if path.is_file():
                    return path
            except OSError:
                continue  # its program was killed, or it is not for us
    return None
