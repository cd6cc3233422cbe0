"""The drill: its options, and its levels one after the other."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import Final

import msgspec

from backy.api import Config, ConfigError, Drill, DrillResult
from backy.config import Size, typed
from backy.hookspecs import hookimpl
from backy_drills import filesystems, kernel
from backy_drills.machine import Course, arguments, boot
from backy_files.guest import Guest
from backy_files.sandbox import GuestError, Served, guestfish, served

BACKY_CONTRACT = "1.0"
FOUND, SOUND, BOOTS, RUNS = LEVELS = (0, 1, 2, 4)
_LEVEL_OF: Final = {"file systems": FOUND, "sound": SOUND, "up": BOOTS, "command": RUNS}
"""The level that a sign proves, if those before it are there."""


class QemuDrill(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The options of the command, and what it does by them."""

    type: str
    command: str = "true"
    """What the guest's shell runs."""
    memory: Size = Size(2**30)
    """Bytes of the guest's memory."""

    def run(
        self, disks: Mapping[Path, str], level: int, within: timedelta, evidence: Callable[[bytes], object]
    ) -> DrillResult:
        """Go up from level 0. Raise ConfigError if there is no such level."""
        if level not in LEVELS:
            raise ConfigError(f"there is no level {level} yet: choose one of {', '.join(map(str, LEVELS))}")
        course, remarks, reason = Course(within.total_seconds(), evidence, time.monotonic), list[str](), ""
        with served(disks) as there:
            try:
                self._climb(there, level, course, remarks)
            except GuestError as error:
                reason = f"{'' if course.left() > 0 else 'the time is over: '}{error}"
        reached = max((_LEVEL_OF[name] for name in takewhile(course.signs.__contains__, _LEVEL_OF)), default=None)
        # what is found on disks is no sign of life
        signs = tuple(sign for sign in course.signs.items() if _LEVEL_OF.get(sign[0], BOOTS) >= BOOTS)
        return DrillResult(reached, reason, signs, (*remarks,), "kvm" if there.kvm else "tcg")

    def _climb(self, disks: Served, level: int, course: Course, remarks: list[str]) -> None:
        with guestfish(disks) as pipes:
            guest = Guest(*pipes, course.left)
            # a check says nothing for as long as it takes; the course has its own limit
            guest.patience = None
            systems = filesystems.found(guest, remarks, course.evidence)
            course.sign("file systems")
            if level >= SOUND:
                filesystems.check(guest, systems, remarks, course.evidence)
                course.sign("sound")
            if level < BOOTS:
                return
            words, scsi = kernel.taken_out(guest, disks.folder)
        boot(disks, arguments(disks, words, self.memory, scsi=scsi), self.command if level >= RUNS else None, course)


@hookimpl
def backy_drill(config: Config) -> Drill:
    """Make the drill from the options of the command."""
    return typed(config, QemuDrill, "drill")
