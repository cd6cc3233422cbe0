"""The status file that a configuration names, for commands that run beside the scheduler."""

from __future__ import annotations

from pathlib import Path

from backy.errors import BackyError
from backy.scheduler.configuration.configuration import load_location
from backy.scheduler.monitoring.status import Status, read


def recorded(configuration: Path) -> Status:
    """Find and read the status file.

    Raises:
        BackyError: there is none, it is none of this version, or the configuration does not tell where it is.
    """
    path = load_location(configuration).status_path
    try:
        return read(path)
    except FileNotFoundError:
        raise BackyError(f"there is no status file {path}; 'backy scheduler' writes it") from None
