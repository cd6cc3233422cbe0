"""The scheduler. It reads /etc/backy.conf and runs the ordinary commands when they are due."""

from pathlib import Path

DEFAULT_CONFIGURATION = Path("/etc/backy.conf")
