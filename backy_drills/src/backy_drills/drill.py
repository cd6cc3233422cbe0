"""The levels of the drill, one after the other."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from backy.api import ConfigError, DrillResult
from backy_drills import filesystems, kernel, machine
from backy_drills.course import Course
from backy_files.guest import Guest
from backy_files.sandbox import GuestError, Served, guestfish, served

FOUND, SOUND, BOOTS, RUNS = LEVELS = (0, 1, 2, 4)
_LEVEL_OF: Final = {"file systems": FOUND, "sound": SOUND, "up": BOOTS, "command": RUNS}
"""The level that a sign of life proves."""


@dataclass
class QemuDrill:
    """Reads file systems by libguestfs, and boots guests by QEMU."""

    command: str
    """What the guest's shell runs."""
    memory: int
    """Bytes of the guest's memory."""
    monotonic: Callable[[], float] = time.monotonic
    """Returns seconds."""

    def run(
        self, disks: Mapping[Path, str], level: int, within: timedelta, evidence: Callable[[bytes], object]
    ) -> DrillResult:
        """Go up from level 0. Raise ConfigError if there is no such level."""
        if level not in LEVELS:
            raise ConfigError(f"there is no level {level} yet: choose one of {', '.join(map(str, LEVELS))}")
        course, remarks, reason = Course(within.total_seconds(), evidence, self.monotonic), list[str](), ""
        with served(disks) as there:
            try:
                self._climb(there, level, course, remarks)
            except GuestError as error:
                reason = str(error)
        reached = max((_LEVEL_OF[name] for name in course.signs if name in _LEVEL_OF), default=None)
        return DrillResult(reached, reason, (*course.signs.items(),), (*remarks,), "kvm" if there.kvm else "tcg")

    def _climb(self, disks: Served, level: int, course: Course, remarks: list[str]) -> None:
        with guestfish(disks) as pipes:
            guest = Guest(*pipes, course.left)
            systems = filesystems.found(guest, remarks)
            course.sign("file systems")
            if level >= SOUND:
                filesystems.check(guest, systems, remarks, course.evidence)
                course.sign("sound")
            bootable = kernel.taken_out(guest, disks.work) if level >= BOOTS else None
        if bootable:
            words = machine.arguments(disks, bootable, self.memory)
            machine.boot(disks, words, self.command if level >= RUNS else None, course)
