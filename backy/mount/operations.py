"""Answers the kernel's requests to the file system from repositories. Only this module imports mfusepy.

mfusepy calls the methods from the threads of libfuse.
"""

import errno
import itertools
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from backy.api import CHUNK_SIZE
from backy.errors import BackyError
from backy.mount.active import read_ahead
from backy.mount.open_images import ChunkCache, ImageFile, OpenImage, OpenImages
from backy.mount.tree import Entry, Folder, Link, Names

# Where libfuse 2 is installed as well, mfusepy would take that, which does not pass on SEEK_DATA and SEEK_HOLE.
os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
import mfusepy  # reads the variable

log = logging.getLogger(__name__)
Kind = TypeVar("Kind", Folder, Link, ImageFile)
_VERSION = mfusepy.fuse_version_major, mfusepy.fuse_version_minor
OPTIONS = {"max_threads": 16, "max_idle_threads": 16} if _VERSION >= (3, 12) else {}
"""Options of libfuse: the number of requests at a time. Versions before 3.12 have no such option.

Without one, mfusepy hands on a number that libfuse complains about.
"""
_READ_AHEAD = 4 * 2**20
"""Bytes that the kernel reads ahead in a file, in requests that FUSE keeps below 1 MiB."""
_BLOCK = 512
"""Bytes of a block in st_blocks, independent of st_blksize (stat(2))."""


class Operations(mfusepy.Operations):  # type: ignore[misc]  # mfusepy has no types
    """Answers the kernel. A method raises OSError with the error number for the caller."""

    # Times are nanoseconds as integers: as floats they would lose digits.
    use_ns = True

    def __init__(
        self, names: Names, cache: ChunkCache, mountpoint: Path, began: Callable[[], None] | None = None
    ) -> None:
        self._names = names
        self._began = began
        self._mountpoint = mountpoint
        self._cache = cache
        self._images = OpenImages(cache)
        self._numbers = itertools.count(1)
        self.handles: dict[int, OpenImage] = {}
        """The open files, which the kernel knows by numbers."""
        self._held: OpenImage | None = None
        self._data: dict[str, int] = {}

    def hold(self, file: ImageFile) -> None:
        """Keep an image open, so that it can still be opened and read after its revision was removed.

        Raises:
            BackyError: the map is damaged, or the storage can not be opened.
        """
        self._held = self._images.open(file)
        self._blocks(file)

    def init_with_config(self, connection: Any, config: Any) -> None:  # noqa: ANN401  # structures of ctypes
        """Tell that the mount is there."""
        if read_ahead(self._mountpoint, _READ_AHEAD):
            connection.max_readahead = _READ_AHEAD
        if self._began is not None:
            self._began()

    def destroy(self, path: str) -> None:
        """End the threads."""
        self._cache.stop()

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """Return kind, size and time of an entry."""
        # An open file is found by its number, because its name may be gone with its revision.
        owner = {"st_uid": os.geteuid(), "st_gid": os.getegid()}
        match self._find(path) if fh is None else self.handles[fh].file:
            case Folder():
                return {"st_mode": stat.S_IFDIR | 0o550, "st_nlink": 2} | owner
            case Link(target):
                return {"st_mode": stat.S_IFLNK | 0o777, "st_nlink": 1, "st_size": len(target)} | owner
            case ImageFile() as file:
                return self._attributes(file) | owner

    def _attributes(self, file: ImageFile) -> dict[str, int]:
        time = int(file.revision.timestamp.timestamp() * 10**6) * 1000
        times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), time)
        sizes = {"st_size": file.revision.size, "st_blocks": self._blocks(file), "st_blksize": CHUNK_SIZE}
        return {"st_mode": stat.S_IFREG | 0o440, "st_nlink": 1, **sizes, **times}

    def _blocks(self, file: ImageFile) -> int:
        """Return the number of blocks in the chunks of an image that hold data."""
        revision_id = file.revision.id
        # Counted once, because an image never changes.
        if revision_id not in self._data:
            try:
                self._data[revision_id] = file.repository.records.read_map(file.revision).data_size()
            except BackyError:
                return -(-file.revision.size // _BLOCK)  # opening the file tells what is wrong
        return -(-self._data[revision_id] // _BLOCK)

    def readdir(self, path: str, fh: int) -> list[str]:
        """List a folder."""
        return [".", "..", *self._wanted(Folder, path, errno.ENOTDIR).names()]

    def readlink(self, path: str) -> str:
        """Return the target of a link."""
        return self._wanted(Link, path, errno.EINVAL).target

    def open(self, path: str, flags: int) -> int:
        """Open an image and return the number of its handle."""
        file, number = self._wanted(ImageFile, path, errno.EISDIR), next(self._numbers)
        try:
            self.handles[number] = self._images.open(file)
        except (BackyError, OSError) as error:
            self._find(path)  # if the revision was removed in this instant, this raises ENOENT, which is right
            name = f"{file.repository.job.name}: revision {file.revision.id}"
            log.error("%s can not be opened: %s", name, error)  # noqa: TRY400  # the error's text says all
            raise OSError(errno.EIO, name) from error
        return number

    def release(self, path: str, fh: int) -> int:
        """Close a handle."""
        del self.handles[fh]
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Read from an image."""
        # Fewer bytes only at the end of the image, because the kernel takes a short answer for the end.
        return self.handles[fh].read(offset, size)

    def lseek(self, offset: int, whence: int, fh: int) -> int:
        """Return the offset of the next data or hole from `offset` on, in whole chunks."""
        chunks = self.handles[fh].chunks
        if not 0 <= offset < chunks.size:
            raise OSError(errno.ENXIO, "behind the end")
        index = offset // CHUNK_SIZE
        # The kernel answers itself to all other ways to seek.
        found = chunks.hole(index) if whence == os.SEEK_HOLE else next(chunks.data(index), None)
        if found is None:
            raise OSError(errno.ENXIO, "there is no data any more")
        return min(max(found * CHUNK_SIZE, offset), chunks.size)

    def _find(self, path: str) -> Entry:
        entry = self._names.find([name for name in path.split("/") if name])
        if entry is None:
            raise OSError(errno.ENOENT, path)
        return entry

    def _wanted(self, kind: type[Kind], path: str, number: int) -> Kind:
        """Return the entry at a path, or raise an error of this number if it is of another kind."""
        entry = self._find(path)
        if not isinstance(entry, kind):
            raise OSError(number, path)
        return entry


class FileSystem(mfusepy.FUSE):  # type: ignore[misc]  # mfusepy has no types
    """The loop of mfusepy, with the call `lseek` of libfuse 3, which mfusepy declares but does not pass on."""

    def lseek(self, path: bytes | None, offset: int, whence: int, info: Any) -> int:  # noqa: ANN401  # a pointer of ctypes
        """Pass on a search for data or a hole."""
        found: int = self.operations.lseek(offset, whence, info.contents.fh)
        return found
