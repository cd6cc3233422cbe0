"""What a guest's console tells: its signs of life, and why there are no more. Pure."""

import re
from collections.abc import Iterator
from typing import Final

_SIGNS: Final = {
    "kernel": r"Linux version \d",
    "init": r"^Welcome to |^INIT: version |systemd\[1\]: .* running in system mode",
    "up": r"Reached target (\S+ - )?Multi-User|^INIT: Entering runlevel: [2-5]|(^|\s)login: ?$",
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
"""Characters of a line that are looked at: a guest writes what it wants."""


class Console:
    """Reads a console piece by piece."""

    def __init__(self) -> None:
        self.fault = ""
        """Why it will not live; empty if there is hope."""
        self.last = ""
        """The last line that says something."""
        self.awaited = list(_SIGNS)
        """The signs of life that are not there yet."""
        self._line, self._why = "", list[str]()

    def take(self, data: bytes) -> Iterator[str]:
        """Read on; yield the names of new signs of life."""
        *lines, rest = (self._line + data.decode(errors="replace")).split("\n")
        self._line = rest[:_LONGEST]
        for line in lines:
            yield from self._look(_plain(line))
            self._find_fault(_plain(line))
        # a login is asked for in a line that has no end yet
        yield from self._look(_plain(self._line))

    def _look(self, line: str) -> Iterator[str]:
        self.last = line.strip()[:200] or self.last
        # a later sign tells as much as those before it
        while any(re.search(_SIGNS[name], line) for name in self.awaited):
            yield self.awaited.pop(0)

    def _find_fault(self, line: str) -> None:
        if (why := _WHY.search(line)) and why[0] not in self._why:
            self._why.append(why[0])
        fault = next((fault for fault, pattern in _FAULTS.items() if re.search(pattern, line)), None)
        if fault and self.awaited and not self.fault:
            self.fault = f"{fault}: {'; '.join(self._why[:3]) or line.strip()}"[:500]


def _plain(line: str) -> str:
    return _ESCAPES.sub("", line[:_LONGEST]).rstrip(" ")
