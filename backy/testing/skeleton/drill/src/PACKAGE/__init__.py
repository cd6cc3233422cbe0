"""NAME as a drill for backy: what the entry point names.

This one looks for boot sectors: put what proves more in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from backy.api import ConfigError, Drill, DrillResult
from backy.hookspecs import hookimpl
from backy.reading import open_repository

BACKY_CONTRACT = "1.0"


@hookimpl
def backy_drill() -> Drill:
    """Make the drill; `config` would have the options of the command."""
    return CLASSDrill()


class CLASSDrill:
    """Has level 0 only."""

    def run(
        self, disks: Mapping[Path, str], level: int, within: timedelta, evidence: Callable[[bytes], object]
    ) -> DrillResult:
        """Look at the first sector of each disk."""
        if level > 0:
            raise ConfigError(f"NAME has no level {level}")
        for directory, revision_id in disks.items():
            with open_repository(directory).image(revision_id) as image:
                if image.pread(510, 2) != b"\x55\xaa":
                    return DrillResult(reason=f"the disk of {directory} has no boot sector")
        return DrillResult(reached=0)
