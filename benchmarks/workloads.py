"""Runs the steps of the benchmark: the days of an image, a second image like it, and restores.

All tools take turns within a step, so that other work on the machine slows all of them alike. Every other round has the
reverse order.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import images
from benchmarks.images import Change
from benchmarks.measure import Command, Measurement, measure, measure_all, run
from benchmarks.tools import Tool
from benchmarks.yardsticks import PACKED

STEPS = {
    "full": "Full backup",
    "scrub": "Read and check all that the full backup stored",
    "unchanged": "Unchanged but for its modification time",
    "page": "One page of 4 KiB changed",
    "clustered": "1 % changed, in runs of 1 MiB",
    "scattered": "0.1 % changed, in single 4 KiB pages",
    "month": "More such days: mean time, sum of bytes",
    "second": "Second image, 90 % equal",
    "together": "Full backups at the same time, each to a store of its own",
    "restore": "Restore the full backup to a new file",
    "restore-changed": "Restore the scattered day to a new file",
    "stream": "Restore the full backup to a pipe",
}
COUNTS = (1, 2, 4, 8)
"""How many backups run at the same time in the step `together`."""
YARDSTICKS = {
    "full": ("compress", "store"),
    "scrub": ("check",),
    "unchanged": ("hash",),
    "page": ("hash",),
    "scattered": ("hash",),
    "clustered": ("hash",),
    "second": ("compress", "store"),
    "restore": ("unpack",),
    "restore-changed": ("unpack",),
}
NAMES = {
    "compress": "yardstick: read, zstd 1",
    "store": "yardstick: read, zstd 1, write",
    "hash": "yardstick: read, BLAKE3",
    "unpack": "yardstick: unzstd, write",
    "check": "yardstick: unzstd, BLAKE3",
}


@dataclass(frozen=True)
class Sample:
    """One measurement of one tool in one step."""

    step: str
    tool: str
    measurement: Measurement
    count: int = 1
    """How many commands ran at the same time."""
    data: int = 0
    """Bytes that each of them had to read, holes left out, if it is asked how fast they were."""


class Round:
    """One round of all steps with new stores in `folder`."""

    def __init__(self, folder: Path, template: Path, tools: Sequence[Tool], days: int, *, noise: bool) -> None:
        self._folder = folder
        self._template = template
        self._tools = tools
        self._days = days
        self._noise = noise
        self._image = folder / "image.img"
        self._second = folder / "second.img"
        self._packed = folder / PACKED
        self._digests: dict[str, bytes] = {}
        self.changes: dict[str, Change] = {}
        """Changes of the image by step."""

    def run(self, steps: Sequence[str]) -> Iterator[Sample]:
        """Run the steps in order and yield their costs."""
        self._prepare(steps)
        for step in STEPS:
            # Restores need these two in any case; they are run without being measured if nobody asked for them.
            if step in steps or step in {"full", "scattered"}:
                for sample in self._step(step):
                    if step in steps:
                        yield sample

    def _prepare(self, steps: Sequence[str]) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        # The template stays as it is, so that every round begins with the same image.
        images.copy(self._template, self._image)
        images.copy(self._template, self._second)
        images.change(self._second, 0.07, 256, seed=2, noise=self._noise)  # a tenth of the data: 30 % are holes
        for tool in self._tools:
            (self._folder / tool.name).mkdir()
            tool.prepare(self._folder / tool.name, [self._image, self._second])
        if {"scrub", "restore", "restore-changed"} & set(steps):
            run(self._yardstick("pack", self._template, self._folder))

    def _step(self, step: str) -> Iterator[Sample]:
        if step == "month":
            yield from self._month()
        elif step in {"restore", "restore-changed"}:
            label = "full" if step == "restore" else "scattered"
            yield from self._restores(step, label)
        elif step == "stream":
            yield from self._offered(step, lambda tool, folder: tool.stream(folder, self._image, "full"))
        elif step == "together":
            yield from self._together()
        elif step == "scrub":
            yield from self._yardsticks(step, self._packed)
            yield from self._offered(step, lambda tool, folder: tool.scrub(folder, self._image))
        elif step == "second":
            yield from self._backups(step, self._second)
        else:
            self._change(step)
            yield from self._backups(step, self._image)

    def _change(self, step: str) -> None:
        """Change the image as the step says."""
        # Runs of 256 pages are 1 MiB.
        if step == "clustered":
            self.changes[step] = images.change(self._image, 0.01, 256, seed=3, noise=self._noise)
        elif step == "page":
            share = images.PAGE / self._image.stat().st_size
            self.changes[step] = images.change(self._image, share, 1, seed=3, noise=self._noise)
        elif step == "scattered":
            self.changes[step] = self._scatter(0)
        else:
            self._image.touch()
        self._digests[step] = _digest(self._image)

    def _scatter(self, day: int) -> Change:
        # A seed for each day, or all days would change the same pages.
        return images.change(self._image, 0.001, 1, seed=4 + day, noise=self._noise)

    def _backups(self, step: str, image: Path) -> Iterator[Sample]:
        yield from self._yardsticks(step, image)
        for tool in self._tools:
            folder = self._folder / tool.name
            command = tool.backup(folder, image, step)
            yield Sample(step, tool.name, measure(command, self._folder, tool.store(folder)))

    def _month(self) -> Iterator[Sample]:
        """Back up one scattered day after the other."""
        # The others have no history whose growth could be measured.
        tools = [tool for tool in self._tools if tool.keeps_history]
        measured: dict[str, list[Measurement]] = {tool.name: [] for tool in tools}
        changed = compressed = 0
        for day in range(1, self._days + 1):
            change = self._scatter(day)
            changed += change.changed
            compressed += change.compressed
            for tool in tools:
                folder = self._folder / tool.name
                command = tool.backup(folder, self._image, f"day{day}")
                measured[tool.name].append(measure(command, self._folder, tool.store(folder)))
        # One sample for all days: mean times, and sums of bytes.
        self.changes["month"] = Change(changed, compressed)
        for name, days in measured.items():
            yield Sample("month", name, _summary(days))

    def _together(self) -> Iterator[Sample]:
        """Back up the image several times at once; each command has a store of its own, as each machine has."""
        data = self._image.stat().st_blocks * 512
        for count in COUNTS:
            for tool in self._tools:
                target = self._fresh()
                folders = [target / str(number) for number in range(count)]
                for folder in folders:
                    folder.mkdir()
                    tool.prepare(folder, [self._image])
                commands = [tool.backup(folder, self._image, "full") for folder in folders]
                yield Sample("together", tool.name, measure_all(commands, self._folder), count, data)
        self._fresh()

    def _restores(self, step: str, label: str) -> Iterator[Sample]:
        yield from self._yardsticks(step, self._packed)
        for tool in self._tools:
            if label != "full" and not tool.keeps_history:
                continue
            target = self._fresh()
            command = tool.restore(self._folder / tool.name, self._image, label, target)
            yield Sample(step, tool.name, measure(command, self._folder))
            # A restore that is wrong has no time. A tool without history has the last state that it was given.
            if _digest(target / self._image.name) != self._digests[label if tool.keeps_history else "scattered"]:
                raise AssertionError(f"{tool.name} restored something else than it was given")
        self._fresh()

    def _offered(self, step: str, command: Callable[[Tool, Path], Command | None]) -> Iterator[Sample]:
        """Measure a command that not all tools have."""
        for tool in self._tools:
            offered = command(tool, self._folder / tool.name)
            if offered is not None:
                yield Sample(step, tool.name, measure(offered, self._folder))

    def _yardsticks(self, step: str, origin: Path) -> Iterator[Sample]:
        for name in YARDSTICKS[step]:
            yield Sample(step, NAMES[name], measure(self._yardstick(name, origin, self._fresh()), self._folder))
        self._fresh()

    def _yardstick(self, name: str, origin: Path, target: Path) -> Command:
        arguments = [sys.executable, "-m", "benchmarks.yardsticks", name, str(origin), str(target)]
        return Command(arguments, Path(__file__).parent.parent)

    def _fresh(self) -> Path:
        """Empty the folder for results and return it."""
        target = self._folder / "target"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        return target


def _summary(days: Sequence[Measurement]) -> Measurement:
    return replace(
        days[0],
        wall=sum(day.wall for day in days) / len(days),
        cpu=sum(day.cpu for day in days) / len(days),
        memory=max(day.memory for day in days),
        disk=sum(day.disk for day in days),
        sizes=sum(day.sizes for day in days),
    )


def _digest(path: Path) -> bytes:
    """Return the SHA-256 of a file."""
    # In a process of its own: children begin with the memory of this one, so it has to stay small.
    return subprocess.run(["sha256sum", str(path)], check=True, capture_output=True).stdout.split()[0]
