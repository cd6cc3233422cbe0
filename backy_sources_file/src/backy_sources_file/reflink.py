"""Makes clones: files that share blocks until one of them is written to. btrfs, XFS and others support this.

Other plugins may use the functions. Descriptors are those of regular files. Calls raise OSError unless something else
is stated.

`Clones` of an image are files beside it, which keep their content while the image changes. One has no name during a
backup: the kernel removes it when the process ends, even after a crash. One that is kept for a revision is named
`.backy-<job>@<revision>`. Its attribute `user.backy.clone` shows whether it was changed.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final
from urllib.parse import quote

from backy.durable import closed_at_end, naming
from backy.errors import StorageError

# Requests of ioctl(2) and flags, from linux/fs.h.
_FICLONE: Final = 0x40049409
_GET_FLAGS: Final = 0x80086601
_SET_FLAGS: Final = 0x40086602
_NO_COW: Final = 0x00800000
_GET_ATTRIBUTES: Final = 0x801C581F
_SET_ATTRIBUTES: Final = 0x401C5820
_ATTRIBUTES: Final = struct.Struct("=5I8x")
"""struct fsxattr of linux/fs.h: flags, extent size, number of extents, project, CoW extent size."""
_HAS_COW_EXTENT_SIZE: Final = 0x00010000
# Kernels and file systems disagree about the error for a call that they do not have.
_UNSUPPORTED: Final = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS}
_ATTRIBUTE: Final = "user.backy.clone"


def clone(source: int, target: int) -> None:
    """Give the empty file `target` the content of `source`. Both share all blocks.

    `target` gets the attribute NOCOW if `source` has it, and loses it otherwise.
    """
    _match_no_cow(source, target)
    # Otherwise XFS copies 128 KiB around each block that is written to.
    _copy_single_blocks(target)
    fcntl.ioctl(target, _FICLONE, source)


def is_no_cow(descriptor: int) -> bool:
    """Return whether a file is written in place though its file system copies on write (chattr +C on btrfs)."""
    try:
        return bool(_flags(descriptor) & _NO_COW)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise


def require_clones(folder: Path) -> None:
    """Check that files in `folder` can share blocks.

    Raises:
        StorageError: they can not; the text names file systems that support it.
    """
    # By trying it: the type of a file system does not tell, XFS for example can be made without.
    with clones_needed(folder), TemporaryFile(dir=folder) as source, TemporaryFile(dir=folder) as target:
        source.write(b"backy")
        source.flush()
        clone(source.fileno(), target.fileno())


def is_unsupported(error: OSError) -> bool:
    """Return whether an error of `clone` means that the file system does not support clones."""
    return error.errno in _UNSUPPORTED


@contextmanager
def clones_needed(folder: Path) -> Iterator[None]:
    """Raise StorageError if a call of `clone` fails because the file system of `folder` does not support clones."""
    try:
        with naming(folder):
            yield
    except OSError as error:
        if not is_unsupported(error):
            raise
        text = "lies on a file system that can not share blocks between files (reflink): btrfs and XFS can"
        raise StorageError(f"{folder} {text}") from error


def _match_no_cow(source: int, target: int) -> None:
    """Set or clear NOCOW of `target`, as it is for `source`."""
    # btrfs refuses to clone between files with and without it.
    wanted = is_no_cow(source)
    if wanted != is_no_cow(target):
        flags = _flags(target)
        fcntl.ioctl(target, _SET_FLAGS, struct.pack("l", flags | _NO_COW if wanted else flags & ~_NO_COW))


def _flags(descriptor: int) -> int:
    """Return the attributes of a file, as lsattr(1) shows them."""
    flags: int = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(struct.calcsize("l"))))[0]
    return flags & 0xFFFFFFFF


def _copy_single_blocks(target: int) -> None:
    """Set the CoW extent size of an empty file to one block, if its file system has such a size."""
    try:
        attributes = fcntl.ioctl(target, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
        flags, extent_size, extents, project, _ = _ATTRIBUTES.unpack(attributes)
        block = os.fstatvfs(target).f_frsize
        wanted = _ATTRIBUTES.pack(flags | _HAS_COW_EXTENT_SIZE, extent_size, extents, project, block)
        fcntl.ioctl(target, _SET_ATTRIBUTES, wanted)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


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
            clone(image, descriptor)
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
            ValueError: the clone was changed, or is another file.
        """
        # Others may put a link or a pipe under the name: neither follow the one nor wait for the other.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with closed_at_end(os.open(self._folder() / self._name(revision_id), flags)) as descriptor:
            there = os.listxattr(descriptor)
            if _ATTRIBUTE not in there or os.getxattr(descriptor, _ATTRIBUTE) != _fingerprint(descriptor, revision_id):
                raise ValueError(f"the clone of revision {revision_id} is not what it was")
            yield descriptor

    def remove_others(self, revisions: Collection[str]) -> None:
        """Remove the clones of all revisions except `revisions`."""
        spared = {self._name(revision) for revision in revisions}
        # A folder that is gone, or that we may not list, has no files of ours: there is nothing to go through.
        for path in [one for one in self._folder().glob(f"{self._prefix}*") if one.name not in spared]:
            path.unlink(missing_ok=True)

    def _folder(self) -> Path:
        return Path(os.path.realpath(self._path)).parent

    def _name(self, revision_id: str) -> str:
        return f"{self._prefix}{revision_id}"


def _fingerprint(descriptor: int, revision_id: str) -> bytes:
    """Return the value of the attribute for an unchanged clone of a revision."""
    status = os.fstat(descriptor)
    # Writing to a file changes its time of modification, and another file has another inode.
    return f"{revision_id} {status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()
