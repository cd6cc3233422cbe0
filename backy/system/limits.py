"""Limits of rate, which many processes may have together: a small file tells when its bytes will have been let through.

The kernel releases the lock of the file when a process ends, and what a killed one has taken is over by itself.
"""

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from backy.system.clocks import boot_id, boottime


@dataclass(eq=False)
class Limit:
    """Lets through so many bytes a second, of all threads that have it, and of all processes that name its file."""

    rate: float
    """Bytes a second."""
    path: Path | None = None
    """The file, which is made if it is missing; None, or one that can not be opened, is for this process alone."""
    now: Callable[[], float] = boottime
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._boot = boot_id()
        self._due = 0.0

    def take(self, count: int) -> None:
        """Wait until so many bytes more are let through."""
        with self._lock, ExitStack() as stack:
            file = self._opened(stack)
            if file is not None:
                with suppress(OSError):
                    self._due = max(self._due, self._told(os.pread(file, 4096, 0)))
            # time in which nothing was taken gives no right to more
            due = self._due = max(self._due, self.now()) + count / self.rate
            if file is not None:
                # on a full disk it is for this process alone: an image can be got back all the same
                with suppress(OSError):
                    os.pwrite(file, f"{self._boot} {self.rate:020.6f} {due:020.6f}\n".encode(), 0)
        self.sleep(max(due - self.now(), 0.0))

    def _opened(self, stack: ExitStack) -> int | None:
        """Open and lock the file, which `stack` closes; return None if it can not be had."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with suppress(OSError):
            if self.path:
                file = os.open(self.path, flags, 0o600)
                stack.callback(os.close, file)
                fcntl.flock(file, fcntl.LOCK_EX)
                return file
        return None

    def _told(self, content: bytes) -> float:
        """Return when all bytes will have been let through; 0 if the machine was started since."""
        with suppress(ValueError):
            boot, rate, due = content.decode().split()
            # of bytes that were let through at another rate, as of a mistyped one, nobody waits longer than at this one
            ahead = (float(due) - self.now()) * float(rate) / self.rate
            return self.now() + ahead if boot == self._boot else 0.0
        return 0.0
