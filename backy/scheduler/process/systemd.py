"""Notifies systemd of the state of the scheduler, one datagram per message as in sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping
from datetime import timedelta

log = logging.getLogger(__name__)


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
