"""Clones of an image: files beside it that share its blocks, so that what is in them stays while the image changes.

A clone has no name while it is backed up, and so is gone when the process ends, however that happens. One that is kept
for a revision is named `.backy-<job>@<revision>`; the attribute `user.backy.clone` tells whether it is still what it
was when it was made.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from backy import reflink

_ATTRIBUTE: Final = "user.backy.clone"


class ForeignCloneError(Exception):
    """What has the name of a clone is not what was made under it."""


class Clones:
    """The clones that a job has of the image at `path`, in the folder that the image really lies in."""

    def __init__(self, path: Path, job: str) -> None:
        self._path = path
        self._prefix = f".backy-{quote(job, safe='')}@"

    @contextmanager
    def frozen(self, image: int) -> Iterator[int]:
        """Make a clone of an open image and yield its descriptor; it is gone afterwards unless it was kept.

        Raises:
            OSError: there can be no clone here.
        """
        descriptor = os.open(self._folder(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            reflink.clone(image, descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def keep(self, descriptor: int, revision_id: str) -> None:
        """Give a clone its name, once it is on the disk, and remove all others."""
        os.setxattr(descriptor, _ATTRIBUTE, _identity(descriptor, revision_id))
        os.fsync(descriptor)
        folder = os.open(self._folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Python calls linkat(2), which can follow the link to a file without a name, only if it is given a folder
            origin = f"/proc/self/fd/{descriptor}"
            os.link(origin, self._name(revision_id), src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)
        self.remove_others([revision_id])

    @contextmanager
    def kept(self, revision_id: str) -> Iterator[int]:
        """Open the clone that was kept for a revision and yield its descriptor.

        Raises:
            FileNotFoundError: there is none.
            ForeignCloneError: it was changed, or is another file.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._folder() / self._name(revision_id), flags)
        try:
            if not _is_whole(descriptor, revision_id):
                raise ForeignCloneError
            yield descriptor
        finally:
            os.close(descriptor)

    def remove_others(self, revisions: Collection[str]) -> None:
        """Remove the clones of all revisions but these."""
        spared = {self._name(revision) for revision in revisions}
        for path in self._all():
            if path.name not in spared:
                path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        try:
            return [path for path in self._folder().iterdir() if path.name.startswith(self._prefix)]
        except (FileNotFoundError, PermissionError):  # nobody makes files in a folder that he may not list
            return []

    def _folder(self) -> Path:
        return Path(os.path.realpath(self._path)).parent

    def _name(self, revision_id: str) -> str:
        return f"{self._prefix}{revision_id}"


def _is_whole(descriptor: int, revision_id: str) -> bool:
    try:
        return os.getxattr(descriptor, _ATTRIBUTE) == _identity(descriptor, revision_id)
    except OSError:  # it has no such attribute
        return False


def _identity(descriptor: int, revision_id: str) -> bytes:
    """Return what a clone is known by: writing to it changes its time, and another file has another number."""
    status = os.fstat(descriptor)
    return f"{revision_id} {status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()
