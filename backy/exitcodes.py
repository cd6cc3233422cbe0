"""The exit codes of every command: a contract, documented in docs/reference/exit-codes.md."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command tells its caller. Anything but `DONE` means that what was asked for did not happen."""

    DONE = 0
    """The command did what was asked."""

    FAILED = 1
    """The command failed; one line on standard error says why."""

    USAGE = 2
    """The command line was not understood; nothing was started."""

    UNAVAILABLE = 69
    """Another scheduler serves the base directory (EX_UNAVAILABLE of sysexits.h)."""

    BUSY = 75
    """Another command holds repository or source; the same call may succeed later (EX_TEMPFAIL of sysexits.h)."""
