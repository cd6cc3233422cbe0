"""Running one command and accounting for it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from backy.durable import sync_file_system


class CommandError(Exception):
    """A command that was to be measured failed."""


@dataclass(frozen=True)
class Command:
    """What is run, and where."""

    arguments: Sequence[str]
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    piped: bool = False
    """Whether the output is the result and goes through a pipe to a process that drops it."""


@dataclass(frozen=True)
class Measurement:
    """What a command cost."""

    wall: float
    """Seconds until it had ended and everything was on the disk."""
    cpu: float
    """Seconds of processor time of the command and its children, in user and kernel mode."""
    memory: int
    """Resident bytes at the peak, of the largest process. About 30 MiB is what can be told from the benchmark's own."""
    disk: int = 0
    """Bytes by which the store grew on the disk: blocks, not sizes."""
    sizes: int = 0
    """Bytes by which the sizes of the store's files grew."""


@dataclass(frozen=True)
class Used:
    """What a folder takes up."""

    disk: int = 0
    sizes: int = 0


def used(folder: Path) -> Used:
    """Add up the files of a folder."""
    found = [path.lstat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return Used(sum(status.st_blocks for status in found) * 512, sum(status.st_size for status in found))


def run(command: Command) -> None:
    """Run a command that is not measured; raises CommandError."""
    _wait(command)


def measure(command: Command, target: Path, store: Path | None = None) -> Measurement:
    """Run a command and account for it.

    Everything dirty is written before it begins; what it wrote to the file system of `target` is written before it
    counts as ended, whether it cares for that or not. `store` is the folder whose growth is counted.
    """
    before = used(store) if store else Used()
    descriptor = os.open(target, os.O_RDONLY)
    try:
        sync_file_system(descriptor)
        start = time.perf_counter()
        usage = _wait(command)
        sync_file_system(descriptor)
        wall = time.perf_counter() - start
    finally:
        os.close(descriptor)
    after = used(store) if store else Used()
    return Measurement(
        wall,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
        after.disk - before.disk,
        after.sizes - before.sizes,
    )


def _wait(command: Command) -> os.struct_rusage:  # type: ignore[name-defined]  # typeshed hides it behind `resource`
    with ExitStack() as stack:
        output: int = subprocess.DEVNULL
        if command.piped:
            reading, output = os.pipe()
            sink = subprocess.Popen(["cat"], stdin=reading, stdout=subprocess.DEVNULL)
            os.close(reading)
            stack.callback(sink.wait)
            stack.callback(os.close, output)
        errors = stack.enter_context(TemporaryFile("w+"))
        process = subprocess.Popen(
            command.arguments,
            cwd=command.folder,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise CommandError(f"{' '.join(command.arguments)}: {errors.read().strip()}")
    return usage
