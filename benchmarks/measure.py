"""Runs a command and measures its cost."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from backy.answers.space import spaces
from backy.durable import sync_file_system


class CommandError(Exception):
    """A command failed; the text has its output on standard error."""


@dataclass(frozen=True)
class Command:
    """A command, with its folder and environment."""

    arguments: Sequence[str]
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    piped: bool = False
    """Whether the output is the result. It goes through a pipe to a process that drops it."""


@dataclass(frozen=True)
class Measurement:
    """The cost of a command."""

    wall: float
    """Seconds until the command had ended and everything was on the disk."""
    cpu: float
    """Seconds of processor time of the command and its children, in user and kernel mode."""
    # A child begins as a copy of the benchmark, so values below some 30 MiB are those of the benchmark itself.
    memory: int
    """Resident bytes of the largest process at its peak."""
    disk: int = 0
    """Bytes by which the store grew on the disk: blocks, not sizes."""
    sizes: int = 0
    """Bytes by which the sizes of the store's files grew."""


@dataclass(frozen=True)
class Used:
    """The space of a folder: bytes on the disk, and the sum of the files' sizes."""

    disk: int = 0
    sizes: int = 0


def used(folder: Path) -> Used:
    """Return the space of the files in a folder; blocks that they share count once, and no sizes in backy's pool."""
    found = (path for path in folder.rglob("*") if ".pool" not in path.parts)
    sizes = sum(path.lstat().st_size for path in found if path.is_file() and not path.is_symlink())
    return Used(spaces([folder])[folder.name].total, sizes)


def run(command: Command) -> None:
    """Run a command without measuring it; raise CommandError if it fails."""
    _wait(command)


def measure(command: Command, target: Path, store: Path | None = None) -> Measurement:
    """Run a command and return its cost, as `measure_all` does."""
    return measure_all([command], target, store)


def measure_all(commands: Sequence[Command], target: Path, store: Path | None = None) -> Measurement:
    """Run commands at the same time and return what they cost together.

    The file system of `target` is synced before the commands and again before their time ends. `store` is the folder
    whose growth is counted.

    Raises:
        CommandError: a command failed.
    """
    # Without the syncs, a tool that leaves its data in the page cache would seem faster than one that does not.
    before = used(store) if store else Used()
    descriptor = os.open(target, os.O_RDONLY)
    try:
        sync_file_system(descriptor)
        start = time.perf_counter()
        with ThreadPoolExecutor(len(commands)) as pool:
            usages = list(pool.map(_wait, commands))
        sync_file_system(descriptor)
        wall = time.perf_counter() - start
    finally:
        os.close(descriptor)
    after = used(store) if store else Used()
    return Measurement(
        wall,
        sum(usage.ru_utime + usage.ru_stime for usage in usages),
        max(usage.ru_maxrss for usage in usages) * 1024,
        after.disk - before.disk,
        after.sizes - before.sizes,
    )


def _wait(command: Command) -> os.struct_rusage:  # type: ignore[name-defined]  # typeshed hides it behind `resource`
    with ExitStack() as stack:
        # A tool that writes to /dev/null could notice that and skip its work.
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
