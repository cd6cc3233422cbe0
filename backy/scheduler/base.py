"""The base directory: one scheduler at a time, and only as long as it is the directory that was there at the start."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backy.errors import BackyError
from backy.exitcodes import ExitCode

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
        """Hold a base directory.

        Raises:
            SchedulerRunningError: another scheduler does.
            BackyError: there is no such directory. Nobody makes it here: the disk that belongs there may be missing.
        """
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
        """See that this is the directory that is held, and not an empty one where its disk was mounted.

        Raises:
            BackyError: it is another one.
        """
        try:
            there = os.path.samestat((self.path / LOCK).stat(), os.fstat(self._lock))
        except FileNotFoundError:
            there = False
        if not there:
            raise BackyError(f"{self.path} is not the directory that it was when the scheduler began; is it mounted?")
