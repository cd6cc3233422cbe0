"""What systemd is told of the scheduler: one datagram for each message, as sd_notify(3) describes them."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from datetime import timedelta

log = logging.getLogger(__name__)


class Notifier:
    """Tells the service manager that started this process how it is; says nothing where there is none."""

    def __init__(self, address: str | None, watchdog: timedelta | None = None) -> None:
        self._address = address
        self.watchdog = watchdog
        """Within which time the manager wants to hear `alive` again; None if it does not watch."""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """Take the address out of the environment, so that children do not speak for the scheduler."""
        address = environment.pop("NOTIFY_SOCKET", None)
        microseconds = environment.pop("WATCHDOG_USEC", None)
        meant = environment.pop("WATCHDOG_PID", None) in {None, str(os.getpid())}
        watched = microseconds is not None and microseconds.isdecimal() and meant
        return cls(address, timedelta(microseconds=int(microseconds)) if microseconds and watched else None)

    def ready(self) -> None:
        """Say that the scheduler works, or works again after a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that the configuration is read anew; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the scheduler ends."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Keep the watchdog calm."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Show a line in `systemctl status`."""
        self._send(f"STATUS={text}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
                connection.connect(address)
                connection.send(message.encode())
        except OSError as error:
            log.debug("systemd can not be told %r: %s", message, error)
