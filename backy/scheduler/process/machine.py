"""What the process has of its machine: the base directory, which it holds alone, systemd, and the clock."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from backy.durable import closed_at_end
from backy.errors import BackyError, ExitCode
from backy.repository.revision import Clock
from backy.system.clocks import boottime

log = logging.getLogger(__name__)
LOCK = ".lock"
SMALLEST = timedelta(seconds=1)
"""Smaller jumps are those of a clock that is being adjusted, and harm nobody."""


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
        with closed_at_end(lock):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SchedulerRunningError(f"another scheduler serves {path}") from None
            yield cls(path, lock)

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


class Notifier:
    """Sends notifications to the service manager that started this process; does nothing if there is none."""

    def __init__(self, address: str | None, watchdog: timedelta | None = None) -> None:
        self._address = address
        self.watchdog = watchdog
        """Longest time between two messages `WATCHDOG=1`; None if the manager has no watchdog."""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """Create a notifier from the variables of systemd and remove them from the environment."""
        # Children would inherit them, and could report in the name of the scheduler.
        address = environment.pop("NOTIFY_SOCKET", None)
        microseconds = environment.pop("WATCHDOG_USEC", None)
        meant = environment.pop("WATCHDOG_PID", None) in {None, str(os.getpid())}
        watched = microseconds is not None and microseconds.isdecimal() and meant
        return cls(address, timedelta(microseconds=int(microseconds)) if microseconds and watched else None)

    def tell(self, message: str) -> None:
        """Send a message of sd_notify(3), such as `READY=1`."""
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
                connection.connect(address)
                connection.send(message.encode())
        except OSError as error:
            # Backups are more important than telling of them.
            log.debug("systemd can not be told %r: %s", message, error)


class ClockWatch:
    """Compares the clock that anybody can set with one that nobody can."""

    def __init__(self, clock: Clock, boottime: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._boottime = boottime
        self._began = boottime()
        self._offset = self._now()

    @property
    def watched(self) -> timedelta:
        """How long the clock has been watched, by the other one."""
        return timedelta(seconds=self._boottime() - self._began)

    def jump(self) -> timedelta:
        """Return by how much the clock was set forward since the last call, less than zero if back."""
        before, self._offset = self._offset, self._now()
        jump = self._offset - before
        return timedelta(seconds=round(jump.total_seconds())) if abs(jump) >= SMALLEST else timedelta()

    def _now(self) -> datetime:
        # the start of the machine by the clock: it changes only if the clock is set
        return self._clock() - timedelta(seconds=self._boottime())
