"""What a guest's console tells: its signs of life, and why there are no more. Pure."""

import re
from collections.abc import Iterator
from typing import Final

_SIGNS: Final = {
    "kernel": r"Linux version \d",
    "init": r"^Welcome to |^INIT: version |systemd\[1\]: .* running in system mode",
    "up": r"Reached target (\S+ - )?Multi-User|^INIT: Entering runlevel: [2-5]|^\S+ login:$",
}
"""The signs of life by name, in their order. The last one is the proof."""
_FAULTS: Final = {
    "the root file system was not mounted": r"VFS: Unable to mount root|ALERT!.*does not exist"
    r"|Dropping to a shell|dracut-initqueue.*timeout|Entering emergency mode",
    "the kernel panics": r"Kernel panic - not syncing",
    "a file system has errors": r"UNEXPECTED INCONSISTENCY|RUN fsck MANUALLY",
    "the guest is in emergency mode": r"You are in (emergency|rescue) mode|Give root password for maintenance"
    r"|Cannot open access to console|Reached target (\S+ - )?Emergency Mode",
}
_WHY: Final = re.compile(r"(Timed out waiting|Dependency failed|Failed to (start|mount)|ALERT!|(?<=syncing: )).*")
"""What tells of a cause before the fault is clear."""
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]?|\x1b.|[\x00-\x08\x0b-\x1f]")
_LONGEST: Final = 4096
"""Bytes of a line that are looked at: a guest writes what it wants."""


class Console:
    """Reads a console piece by piece."""

    def __init__(self) -> None:
        self.fault, self.last = "", ""
        """Why it will not live, empty if there is hope; and the last line that says something."""
        self.awaited = list(_SIGNS)
        """The signs of life that are not there yet."""
        self._rest, self._causes = b"", list[str]()

    def take(self, data: bytes) -> Iterator[str]:
        """Read on; yield the names of new signs of life. No data is the end."""
        # what moves on the screen returns to the beginning of its line
        *lines, rest = re.split(rb"[\r\n]", self._rest + data)
        self._rest = rest[:_LONGEST]
        # a login is asked for in a line that has no end yet; faults are told in whole ones
        for line, whole in [*((_plain(one), True) for one in lines), (_plain(self._rest), False)]:
            self.last = line.strip()[:200] or self.last
            # a later sign tells as much as those before it; after a fault none tells anything
            while not self.fault and any(re.search(_SIGNS[name], line) for name in self.awaited):
                yield self.awaited.pop(0)
            if whole and self.awaited and not self.fault:
                self._find_fault(line)
        if not data:
            self.fault = self.fault or f"the guest has ended; its console says last: {self.last}"

    def _find_fault(self, line: str) -> None:
        if why := _WHY.search(line):
            # the first ones, and the last one: a guest writes what it wants
            self._causes = [*dict.fromkeys((*self._causes[:3], why[0]))]
        if fault := next((fault for fault, pattern in _FAULTS.items() if re.search(pattern, line)), None):
            self.fault = f"{fault}: {'; '.join(self._causes) or line.strip()}"[:500]


def _plain(line: bytes) -> str:
    return _ESCAPES.sub("", line[:_LONGEST].decode(errors="replace")).rstrip(" ")
