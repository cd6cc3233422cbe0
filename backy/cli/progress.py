"""Progress bars with rate and remaining time: on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from backy.api import Progress
from backy.system.progress import Steps, quiet


@contextmanager
def steps() -> Iterator[Steps]:
    """Give what shows each step as a bar on standard error, or nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield quiet
        return
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
            task = bars.add_task(name, total=total)
            return lambda length: bars.advance(task, length)

        yield step
