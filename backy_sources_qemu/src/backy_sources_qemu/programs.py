"""Calls the programs of QEMU. Every error is one line."""

import os
import subprocess
from collections.abc import Sequence
from typing import Final

from backy.api import SourceError

TIMEOUT: Final = 120
"""Seconds that a program may take."""


def run(what: str, *command: str, descriptors: Sequence[int] = ()) -> str:
    """Run a program and return what it prints; raise SourceError, which begins with `what`, if it fails."""
    try:
        done = subprocess.run(  # noqa: S603  # names that were checked, after options that end with "="
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            pass_fds=descriptors,
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise SourceError(f"{what}: the program {command[0]} is missing; install the package qemu-utils") from None
    except subprocess.TimeoutExpired:
        raise SourceError(f"{what}: {command[0]} does not end within {TIMEOUT} s") from None
    if done.returncode:
        told = " ".join(done.stderr.split()).removeprefix(f"{command[0]}: ")
        raise SourceError(f"{what}: {command[0]}: {told or f'exit code {done.returncode}'}")
    return done.stdout
