"""Shows progress bars with rate and remaining time, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from backy.api import Progress
from backy.cli.heartbeat import beating, heartbeat
from backy.system.progress import Steps, quiet


@contextmanager
def steps() -> Iterator[Steps]:
    """Yield a function that shows each step as a bar on standard error; it shows nothing if that is no terminal.

    A scheduler that watches this process learns that work goes on.
    """
    pipe = heartbeat()
    with _shown() as show:
        yield show if pipe is None else beating(show, pipe)


@contextmanager
def _shown() -> Iterator[Steps]:
    if not sys.stderr.isatty():
        yield quiet
        return
    # Imported late: it takes 40 ms, for nothing in cron jobs and below the scheduler, which have no terminal.
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description:>8}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bars:

        def step(name: str, total: int) -> Progress:
            # A bar for each step, the finished ones included: together they tell where the time went.
            task = bars.add_task(name, total=total)
            return lambda length: bars.advance(task, length)

        yield step
