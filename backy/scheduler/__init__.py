"""The scheduler: it reads /etc/backy.conf and runs the ordinary commands when their time has come."""

from __future__ import annotations

from pathlib import Path

DEFAULT_CONFIGURATION = Path("/etc/backy.conf")
