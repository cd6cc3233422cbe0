"""Clones of an image: files beside it that share its blocks and keep their content while the image changes.

A clone has no name during a backup. The kernel removes it when the process ends, even after a crash. A clone that is
kept for a revision is named `.backy-<job>@<revision>`. Its attribute `user.backy.clone` shows whether it was changed.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from backy.durable import closed_at_end
from backy_sources_file import reflink

_ATTRIBUTE: Final = "user.backy.clone"


class ForeignCloneError(Exception):
    """A file has the name of a clone but is not the unchanged clone."""


class Clones:
    """The clones that a job has of the image at `path`. They lie in the folder of the image, links resolved."""

    def __init__(self, path: Path, job: str) -> None:
        self._path = path
        self._prefix = f".backy-{quote(job, safe='')}@"

    @contextmanager
    def frozen(self, image: int) -> Iterator[int]:
        """Clone an open image and yield the descriptor of the clone; remove it afterwards unless it was kept.

        Raises:
            OSError: the file system can not make a clone here.
        """
        with closed_at_end(os.open(self._folder(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)) as descriptor:
            reflink.clone(image, descriptor)
            yield descriptor

    def keep(self, descriptor: int, revision_id: str) -> None:
        """Sync a clone, name it after a revision, and remove all other clones of the job."""
        os.setxattr(descriptor, _ATTRIBUTE, _fingerprint(descriptor, revision_id))
        # A name must never lead to a clone that a power loss could still tear.
        os.fsync(descriptor)
        with closed_at_end(os.open(self._folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
            # Only linkat(2) can follow this link to a file without a name, and Python calls it only with a folder.
            origin = f"/proc/self/fd/{descriptor}"
            os.link(origin, self._name(revision_id), src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
        self.remove_others([revision_id])

    @contextmanager
    def kept(self, revision_id: str) -> Iterator[int]:
        """Open the clone that was kept for a revision and yield its descriptor.

        Raises:
            FileNotFoundError: there is no such clone.
            ForeignCloneError: the clone was changed, or is another file.
        """
        # Others may put a link or a pipe under the name: neither follow the one nor wait for the other.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with closed_at_end(os.open(self._folder() / self._name(revision_id), flags)) as descriptor:
            if not _is_whole(descriptor, revision_id):
                raise ForeignCloneError
            yield descriptor

    def remove_others(self, revisions: Collection[str]) -> None:
        """Remove the clones of all revisions except `revisions`."""
        spared = {self._name(revision) for revision in revisions}
        for path in self._all():
            if path.name not in spared:
                path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        try:
            return [path for path in self._folder().iterdir() if path.name.startswith(self._prefix)]
        except (FileNotFoundError, PermissionError):  # a folder that we may not list has no files of ours
            return []

    def _folder(self) -> Path:
        return Path(os.path.realpath(self._path)).parent

    def _name(self, revision_id: str) -> str:
        return f"{self._prefix}{revision_id}"


def _is_whole(descriptor: int, revision_id: str) -> bool:
    try:
        return os.getxattr(descriptor, _ATTRIBUTE) == _fingerprint(descriptor, revision_id)
    except OSError:  # it has no such attribute
        return False


def _fingerprint(descriptor: int, revision_id: str) -> bytes:
    """Return the value of the attribute for an unchanged clone of a revision."""
    status = os.fstat(descriptor)
    # Writing to a file changes its time of modification, and another file has another inode.
    return f"{revision_id} {status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()
