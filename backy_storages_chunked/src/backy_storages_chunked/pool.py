"""The pool: full chunks that the repositories of one base directory share. Each of them has a file of its own.

`<base>/.pool/<with>/<two digits>/<id>.zst` shares its blocks with the files of the repositories, or is one file with
them where somebody asks for hard links. It is a cache: nothing refers to it, what is taken from it is compared first,
and what no repository shares any more goes with a purge.
"""

import errno
import fcntl
import logging
import os
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from backy.api import Job
from backy.durable import READ_ONLY, closed_at_end, open_regular, open_sized
from backy.extents import is_shared, mapped
from backy_storages_chunked.codec import LARGEST_FRAME

log = logging.getLogger(__name__)
POOL = ".pool"
SWEPT = ".swept"
PLACES = "places"
"""Name of the file with the ids of the chunks that were given last, by their index in an image."""
ID_SIZE = 32
PAUSE = 3600.0
"""Seconds between two sweeps at least: each looks at all files, and every repository of a base directory is purged."""
_FICLONE: Final = 0x40049409  # ioctl of linux/fs.h
_FIDEDUPERANGE: Final = 0xC0189436  # likewise
_DEDUPE: Final = struct.Struct("=QQHHI qQQiI")
"""struct file_dedupe_range with one struct file_dedupe_range_info, of linux/fs.h."""
_NEVER: Final = {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS}
"""Errors that each file would have."""


class Share(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename={"group": "with"}):
    """Whether and with whom a repository shares full chunks."""

    mode: Literal["reflink", "hardlink", "none"] = "reflink"
    """`hardlink` makes one file of those with the same content: a change in place, or damage, is one of all."""
    group: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][\w.-]{0,63}\Z")] = "all"
    """Name of those that share with each other."""


def _cloned(source: str, target: str) -> None:
    with closed_at_end(open_regular(source, LARGEST_FRAME)) as opened:
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, READ_ONLY)
        with closed_at_end(made):
            fcntl.ioctl(made, _FICLONE, opened)


def _linked(source: str, target: str) -> None:
    if os.lstat(source).st_uid != os.geteuid():
        raise PermissionError("another user has it")
    with suppress(FileNotFoundError):
        os.unlink(target)
    os.link(source, target, follow_symlinks=False)


class Pool:
    """The pool of a group of repositories. No method fails: what can not be shared, each repository stores."""

    def __init__(self, folder: Path | None, *, links: bool = False) -> None:
        """Use the pool in `folder`, which is made when something comes; None for no pool."""
        self._folder = folder
        self.works = folder is not None
        """Whether anything can be shared, as far as is known."""
        self._share = _linked if links else _cloned

    def take(self, name: str, target: str) -> bool:
        """Make the file `target` from what the pool has by the name of a chunk file; return whether it has."""
        return self.works and self._made(self._path(name), target)

    def at(self, index: int) -> bytes:
        """Return the id of the full chunk that was given last as chunk `index` of an image; of none if none was."""
        with suppress(OSError), closed_at_end(open_regular(f"{self._folder}/{PLACES}")) as places:
            return os.pread(places, ID_SIZE, index * ID_SIZE)
        return b""

    def give(self, path: str, index: int | None = None) -> None:
        """Have a full chunk's file in the pool, too; `index` is its place in an image."""
        wanted = self._path(os.path.basename(path))
        if not self.works or os.path.exists(wanted):
            return
        temporary = f"{wanted}.{os.getpid()}.{threading.get_native_id()}.tmp"
        with suppress(OSError):
            os.makedirs(os.path.dirname(wanted), mode=0o750, exist_ok=True)
            os.rename(temporary, wanted) if self._made(path, temporary) else os.unlink(temporary)
            if index is not None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                with closed_at_end(os.open(f"{self._folder}/{PLACES}", flags, 0o640)) as places:
                    os.pwrite(places, bytes.fromhex(os.path.basename(path)[: 2 * ID_SIZE]), index * ID_SIZE)

    def drop(self, name: str) -> None:
        """Remove what is not as its name says."""
        with suppress(OSError):
            os.unlink(self._path(name))

    def join(self, path: str) -> int:
        """Let a full chunk's file share with that in the pool again; return the bytes that are not taken twice now."""
        if self._share is _linked or not os.path.exists(self._path(os.path.basename(path))):
            self.give(path)
            return 0
        with suppress(OSError, ValueError):
            source, size = open_sized(self._path(os.path.basename(path)), LARGEST_FRAME)
            with closed_at_end(source), closed_at_end(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as target:
                if [one.physical for one in mapped(source)] == [one.physical for one in mapped(target)]:
                    return 0
                # the kernel compares both
                request = bytearray(_DEDUPE.pack(0, size, 1, 0, 0, target, 0, 0, 0, 0))
                fcntl.ioctl(source, _FIDEDUPERANGE, request)
                return int(_DEDUPE.unpack(request)[7])
        return 0

    def sweep(self) -> int:
        """Remove what no repository shares any more, unless that was done within the last hour; return its bytes."""
        freed, now = 0, time.time()
        if self._folder is None:
            return 0
        # of all groups: one may have no repository any more
        mark = self._folder.parent / SWEPT
        with suppress(OSError):
            if now - mark.stat().st_mtime < PAUSE:
                return 0
        for path in self._folder.parent.glob("*/??/*"):
            with suppress(OSError):
                # what is being made is no chunk's yet, but for what a crash has left
                if not is_shared(path) if path.suffix == ".zst" else now - path.lstat().st_mtime > PAUSE:
                    freed += path.lstat().st_size
                    path.unlink()
        with suppress(OSError):
            mark.touch()
        return freed

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name[:2]}/{name}"

    def _made(self, source: str, target: str) -> bool:
        try:
            self._share(source, target)
        except FileNotFoundError:
            return False
        except OSError as error:
            # another file system, too many links, not this owner: each has reasons to go on without
            log.debug("%s is not shared: %s", source, error)
            self.works = error.errno not in _NEVER
            return False
        return True


NONE = Pool(None)
"""Shares nothing."""


def beside(job: Job, share: Share) -> Pool:
    """Return the pool in the base directory of a repository, if there is one and it may share."""
    # who may not look there can share nothing
    with suppress(PermissionError):
        if share.mode != "none" and (job.base / POOL).is_dir():
            return Pool(job.base / POOL / share.group, links=share.mode == "hardlink")
    return NONE
