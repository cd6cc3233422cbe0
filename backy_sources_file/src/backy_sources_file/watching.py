"""Watches a file or a block device that is read as it lies there: for sources that can not freeze what they read."""

import os
import re
import stat
import time
from pathlib import Path
from typing import Final

from backy.api import Consistency
from backy.durable import sync_file_system_of

_TICK: Final = 10**7
"""Nanoseconds; the clock by which files get their times ticks at least as often."""
_ELSEWHERE: Final = ("9p", "ceph", "cifs", "fuse", "nfs", "smb", "virtiofs", "drbd", "nbd", "rbd")
"""Beginnings of the names of file systems and devices to which other machines can write unseen."""

_Marks = tuple[tuple[int, ...], int]
"""Numbers of which one differs after every write, and one that grows when something was read."""


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
        try:
            status = os.fstat(self._descriptor)
            # as proc_pid_mountinfo(5) explains it
            mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
            look = self._file if stat.S_ISREG(status.st_mode) else self._device
            return look(status, [mount.split() for mount in mounts])
        except (OSError, ValueError, LookupError):
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
