"""Ports for servers that tests start by their number."""

from __future__ import annotations

import random
import socket


def unused_port() -> int:
    """Return a port that nobody listens at, below those that the kernel gives to connections (ip_local_port_range)."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
