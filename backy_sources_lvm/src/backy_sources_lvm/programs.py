"""Calls LVM's programs. Every error is one line."""

import os
import select
import subprocess
import tempfile
from typing import IO, Final

from backy.api import SourceError
from backy.durable import closed_at_end

TIMEOUT: Final = 600
"""Seconds that a program of LVM may take."""
COMPARING: Final = 6 * 3600
"""Seconds that reading a pool's metadata may take: that of a pool of many TiB has gigabytes."""
_PACKAGES: Final = {"thin_delta": "thin-provisioning-tools", "thin_dump": "thin-provisioning-tools"}
_CONCLUSIONS: Final = ("Command failed.", "Run `")
"""How lines of errors begin that tell no cause."""
_FOLDERS: Final = "/usr/sbin:/sbin"
"""Where the programs lie, which the PATH of a service may leave out."""


def run(what: str, *command: str, limit: float = TIMEOUT) -> str:
    """Run a program and return what it prints; raise SourceError, which begins with `what`, if it fails."""
    with tempfile.TemporaryFile() as output:
        run_into(output, what, *command, limit=limit)
        output.seek(0)
        return output.read().decode(errors="replace")


def run_into(output: IO[bytes], what: str, *command: str, limit: float = TIMEOUT) -> None:
    """Run a program that prints to a file; raise SourceError, which begins with `what`, if it fails.

    A program that takes longer than `limit` is left alone, and so is one that runs when this process is told to end:
    LVM holds writers of a volume back while it makes a snapshot, and would hold them back for ever.
    """
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', os.defpath)}:{_FOLDERS}"}
    # files, not pipes: a program must not die of a closed pipe if this process is killed
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603  # LVM's programs, and names that were checked
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment, start_new_session=True
            )
        except FileNotFoundError:
            package = _PACKAGES.get(command[0], "lvm2")
            raise SourceError(f"{what}: the program {command[0]} is missing; install the package {package}") from None
        code = _ended(process, what, command[0], limit)
        errors.seek(0)
        told = errors.read().decode(errors="replace")
    if code:
        raise SourceError(f"{what}: {command[0]}: {reason(told) or f'exit code {code}'}")


def _ended(process: subprocess.Popen[bytes], what: str, program: str, limit: float) -> int:
    """Wait for a program and return its exit code."""
    # Popen's own wait with a limit looks again and again, for up to a twentieth of a second too long
    with closed_at_end(os.pidfd_open(process.pid)) as descriptor:
        ending = select.poll()
        ending.register(descriptor, select.POLLIN)
        try:
            has_ended = ending.poll(limit * 1000)
        except BaseException:
            # this process shall end, but not before its program: what that has made is removed next
            process.wait(limit)
            raise
    if not has_ended:
        raise SourceError(f"{what}: {program} does not end within {limit:.0f} s, and still runs")
    return process.wait()


def reason(told: str) -> str:
    """Return the line of a program's errors that tells the cause: the last one that is no mere conclusion."""
    lines = [line.strip() for line in told.partition("Usage:")[0].splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith(_CONCLUSIONS)), "")
