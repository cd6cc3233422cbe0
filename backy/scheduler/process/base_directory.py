"""The base directory: locked by one scheduler at a time, and checked to be still the same directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backy.errors import BackyError, ExitCode

LOCK = ".lock"


class SchedulerRunningError(BackyError):
    """Another scheduler serves the base directory."""

    exit_code = ExitCode.UNAVAILABLE


class BaseDirectory:
    """The directory with all repositories, held by this process."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    @contextmanager
    def held(cls, path: Path) -> Iterator[BaseDirectory]:
        """Lock a base directory.

        Raises:
            SchedulerRunningError: another scheduler holds the lock.
            BackyError: the directory is missing or can not be used.
        """
        # The directory is not created: more likely its disk is not mounted, and backups would fill the one below.
        try:
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        except OSError as error:
            raise BackyError(f"the base directory {path} can not be used: {error.strerror}; is it mounted?") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield cls(path, lock)
        except BlockingIOError:
            raise SchedulerRunningError(f"another scheduler serves {path}") from None
        finally:
            os.close(lock)

    def check(self) -> None:
        """Check that the path still leads to the locked directory.

        Raises:
            BackyError: it leads elsewhere.
        """
        # After the disk was unmounted there is an empty directory of the same name.
        try:
            there = os.path.samestat((self.path / LOCK).stat(), os.fstat(self._lock))
        except FileNotFoundError:
            there = False
        if not there:
            raise BackyError(f"{self.path} is not the directory that it was when the scheduler began; is it mounted?")
