"""The source: an image file or a block device, read without its holes.

It freezes a file by a clone, keeps the clone for the next backup, and compares with the kept one. What can not be
frozen is watched: `WriteWatch` tells whether somebody wrote to it meanwhile.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import time
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from backy.api import Consistency, Extent, Snapshot, SourceError
from backy.durable import closed_at_end, pread_all, sync_file_system_of
from backy.errors import raising, warned
from backy_sources_file import fiemap, reflink
from backy_sources_file.reflink import Clones

log = logging.getLogger(__name__)
_TICK: Final = 10**7
"""Nanoseconds; the clock by which files get their times ticks at least as often."""
_ELSEWHERE: Final = ("9p", "ceph", "cifs", "fuse", "nfs", "smb", "virtiofs", "drbd", "nbd", "rbd")
"""Beginnings of the names of file systems and devices to which other machines can write unseen."""
_Marks = tuple[tuple[int, ...], int]
"""Numbers of which one differs after every write, and one that grows when something was read."""
FREEZES: Final = ("off", "during-backup", "keep")


class WriteWatch:
    """Tells whether an open file or block device was written to since the watch began. Begin before you read the size.

    Counted is what this machine writes. Of a program that has a file mapped into its memory, this sees what the file
    system notes: btrfs, ext4 and XFS note it, tmpfs does not.
    """

    def __init__(self, descriptor: int, block_devices: Path = Path("/sys/dev/block")) -> None:
        self._descriptor = descriptor
        self._block_devices = block_devices
        self._before = before = self._look()
        self._written = False
        # writes within a tick leave the same times, so wait until the next one leaves others
        if before and time.time_ns() - max(before[0]) < _TICK:
            time.sleep(_TICK / 1e9)
            self._written = not (now := self._look()) or now[0] != before[0]

    @property
    def consistency(self) -> Consistency:
        """`crash` if nothing was written since the watch began, `none` if something was, else `unknown`.

        Ask after the last read. What was written meanwhile is brought to the disk.
        """
        if not self._written:
            before, now = self._before, self._look()
            # a device that did not even count what was read here counts no writes either
            if before is None or now is None or now[1] == before[1]:
                return "unknown"
            self._written = now[0] != before[0]
        return "none" if self._written else "crash"

    def _look(self) -> _Marks | None:
        """Return what can be seen now; None if that tells nothing."""
        with suppress(OSError, ValueError, LookupError):
            status = os.fstat(self._descriptor)
            # as proc_pid_mountinfo(5) explains it
            mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
            look = self._file if stat.S_ISREG(status.st_mode) else self._device
            return look(status, [mount.split() for mount in mounts])
        return None

    def _file(self, _status: os.stat_result, mounts: list[list[str]]) -> _Marks | None:
        # from now on, what is written through a mapping in memory is noted, even where it was written to before
        os.fsync(self._descriptor)
        kinds = {fields[0]: fields[fields.index("-") + 1] for fields in mounts}
        about = Path(f"/proc/self/fdinfo/{self._descriptor}").read_text()
        if kinds[about.partition("mnt_id:")[2].split()[0]].startswith(_ELSEWHERE):
            return None
        status = os.fstat(self._descriptor)
        return (status.st_mtime_ns, status.st_ctime_ns), time.monotonic_ns()

    def _device(self, status: os.stat_result, mounts: list[list[str]]) -> _Marks | None:
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        folder = self._block_devices / number
        if folder.resolve().name.startswith(_ELSEWHERE):
            return None
        # a mounted file system changes what can be read of its device long before it writes that to the disk
        for fields in mounts:
            if fields[2] == number:
                sync_file_system_of(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        # likewise all others who do not write directly
        os.fsync(self._descriptor)
        # and what other file systems have written is not in memory: it would be read as it was
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        # https://docs.kernel.org/admin-guide/iostats.html; the number of writes counts flushes, such as these, as well
        counters = [int(word) for word in (folder / "stat").read_text().split()]
        writing = int((folder / "inflight").read_text().split()[1])
        return (counters[6], counters[13], writing), counters[0]


@contextmanager
def opened(path: Path) -> Iterator[OpenFile]:
    """Open an image while the context lasts.

    Raises:
        SourceError: it can not be opened, or is neither a file nor a block device.
    """
    with raising(SourceError, f"source {path}"):
        # O_NONBLOCK: opening a pipe by mistake must not wait for somebody who writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with closed_at_end(descriptor):
        yield OpenFile(path, descriptor)


class OpenFile:
    """An open image or its frozen clone. The size is that at the time of opening.

    `changes` has the ranges that differ from an earlier image, or None. `watch` notes who writes; None for a clone,
    which nobody writes to. Several threads may read at once.
    """

    def __init__(
        self, path: Path, descriptor: int, changes: Sequence[Extent] | None = None, watch: WriteWatch | None = None
    ) -> None:
        self._path = path
        self._changes = changes
        self._watch = watch
        self.descriptor = descriptor
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "neither a file nor a block device"
            raise SourceError(f"source {path} is {kind}; it must be an image file or a block device")
        self.is_regular = stat.S_ISREG(mode)
        # fstat has no size of a block device.
        self.size = os.lseek(descriptor, 0, os.SEEK_END)

    @property
    def consistency(self) -> Consistency:
        """What the image is like: a clone is made in one step, and what is no clone is watched."""
        return self._watch.consistency if self._watch else "crash"

    @property
    def advice(self) -> str:
        """What to do if the image is written to while it is read."""
        if self.is_regular:
            return "shut down what writes to it, or let it lie on btrfs or XFS, where the source can freeze it"
        return "stop what writes to it, or back up a snapshot of it, which is a device of its own with LVM"

    def changes(self) -> Iterable[Extent] | None:
        """Return the ranges that differ from the parent revision; None if they are not known."""
        return self._changes

    def changes_within(self, offset: int, length: int) -> Sequence[Extent]:
        """Return those of the changes that touch a range, which has whole blocks of the file system."""
        changes = self._changes or ()
        first = bisect_right(changes, offset, key=lambda one: one.end)
        return changes[first : bisect_left(changes, offset + length, key=lambda one: one.offset)]

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes as the file system knows them; a block device has data only."""
        position = 0
        while position < self.size:
            data = self._next(os.SEEK_DATA, position) if self.is_regular else position
            if data > position:
                yield Extent(position, data - position, data=False)
            if data == self.size:
                return
            position = self._next(os.SEEK_HOLE, data) if self.is_regular else self.size
            yield Extent(data, position - data, data=True)

    def _next(self, kind: int, position: int) -> int:
        """Return where data or a hole begins, from `position` on; the size if there is none."""
        try:
            return min(os.lseek(self.descriptor, position, kind), self.size)
        except OSError as error:
            # ENXIO: there is no data any more, or the position is beyond the end.
            if error.errno != errno.ENXIO:
                raise SourceError(f"source {self._path}: {error.strerror}") from error
        if os.fstat(self.descriptor).st_size < self.size:
            raise self._shrank()
        return self.size

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError if they can not be read."""
        with raising(SourceError, f"source {self._path} at {offset}"):
            data = pread_all(self.descriptor, length, offset)
        if len(data) < length:
            raise self._shrank()
        return data

    def _shrank(self) -> SourceError:
        return SourceError(f"source {self._path} shrank below {self.size} bytes while it was read")


class FileSource:
    """An image file or a block device. A clone freezes a file where its file system can make clones."""

    def __init__(self, path: Path, job: str, freeze: str) -> None:
        self._path = path
        self._freeze = freeze
        self._clones = Clones(path, job)

    @property
    def verifier(self) -> str:
        """The verifier that suits the setting `freeze`."""
        # Changes are known only with kept clones, and without them `changed` would have nothing to go by.
        return "changed" if self._freeze == "keep" else "full"

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the image for a backup if possible. Keep the clone after a complete backup with `freeze: keep`."""
        with opened(self._path) as image, ExitStack() as stack:
            kept, clone = parent if self._freeze == "keep" else None, None
            # A block device can not be cloned.
            if image.is_regular:
                # A clone too many costs space. No backup would cost more.
                with warned(log, "old clones stay until the next backup"):
                    self.retain([kept] if kept else [])
                clone = self._frozen(image, stack) if self._freeze != "off" else None
            if clone is None:
                # The watch begins before the size is looked up: an image that grows meanwhile counts as written to.
                yield OpenFile(self._path, image.descriptor, watch=WriteWatch(image.descriptor))
                return
            yield OpenFile(self._path, clone, self._changes(kept, clone) if kept else None)
            # A failed backup raises at the yield and does not get here: the clone of the parent stays.
            if self._freeze == "keep":
                self._keep(clone, revision_id)

    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove the clones of all other revisions; raise SourceError if they can not be removed."""
        try:
            self._clones.remove_others(revision_ids)
        except OSError as error:
            raise SourceError(f"source {self._path}: clones of it can not be removed: {error}") from error

    def _frozen(self, image: OpenFile, stack: ExitStack) -> int | None:
        """Clone the image until `stack` ends and return the descriptor; None if it can not be cloned."""
        try:
            return stack.enter_context(self._clones.frozen(image.descriptor))
        except OSError as error:
            unable = reflink.is_unsupported(error)
            cause = "its file system can not share blocks between files" if unable else error.strerror
            level = logging.WARNING if self._freeze == "keep" else logging.INFO
            log.log(level, "source %s is read as it lies there, for it can not be frozen: %s", self._path, cause)
            return None

    def _changes(self, parent: str, clone: int) -> list[Extent] | None:
        """Compare with the clone that was kept for the revision `parent`; return None if that is not possible."""
        try:
            with self._clones.kept(parent) as old:
                return fiemap.changes(old, clone)
        except FileNotFoundError:
            cause = f"the clone of revision {parent} is missing"
        except ValueError as error:
            cause = str(error)
        except OSError as error:
            cause = f"its extents can not be told: {error}"
        log.warning("source %s is read from end to end: %s", self._path, cause)
        return None

    def _keep(self, clone: int, revision_id: str) -> None:
        """Keep the clone of a complete revision and remove the clone of its parent."""
        try:
            self._clones.keep(clone, revision_id)
        except OSError as error:
            log.warning("source %s: no clone is kept, so the next backup reads all of it: %s", self._path, error)
