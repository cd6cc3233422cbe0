"""Shows progress: to people as bars with rate and remaining time, on a terminal only; to a scheduler by a pipe."""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import msgspec

from backy.api import Progress
from backy.system.progress import HEARTBEAT, Steps, quiet
from backy.text.phrases import size


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
    from rich.text import Text

    class Rate(progress.ProgressColumn):
        """Shows the rate in the units of everything else, and at the end what was not needed."""

        def render(self, task: progress.Task) -> Text:
            """Return it."""
            skipped = task.fields.get("skipped")
            speed = task.finished_speed or task.speed
            texts = [f"{size(int(speed))}/s" if speed else "", f"{size(skipped)} skipped" if skipped else ""]
            return Text(", ".join(filter(None, texts)))

    name, bar = progress.TextColumn("{task.description:>8}"), progress.BarColumn()
    done, left = progress.DownloadColumn(binary_units=True), progress.TimeRemainingColumn()
    with progress.Progress(name, bar, done, Rate(), left, console=Console(stderr=True)) as bars:

        def settle() -> None:
            """Let the bars of steps that have ended tell what they skipped: a source may tell what is as it was."""
            for task in bars.tasks:
                if task.total and (rest := int(task.total - task.completed)):
                    bars.update(task.id, total=task.completed, skipped=rest)

        def step(name: str, total: int) -> Progress:
            settle()
            # A bar for each step, the finished ones included: together they tell where the time went.
            return partial(bars.advance, bars.add_task(name, total=total))

        yield step
        settle()


def heartbeat() -> int | None:
    """Return the descriptor of the pipe that a scheduler watches this process by; None if there is no such pipe."""
    # Taken away, as a program that this one starts has another file under the number.
    value = os.environ.pop(HEARTBEAT, "")
    with suppress(ValueError, OSError):  # it is no number, or that of no open file
        if stat.S_ISFIFO(os.fstat(int(value)).st_mode):
            os.set_inheritable(int(value), False)
            os.set_blocking(int(value), False)
            return int(value)
    return None


def beating(steps: Steps, descriptor: int, monotonic: Callable[[], float] = time.monotonic) -> Steps:
    """Return `steps` that also write to `descriptor` how far they are when bytes are done, once a second at most."""
    last = 0.0

    def beat(**far: str | int) -> None:
        nonlocal last
        # Several threads may be here at once: then there is a line more, which does not matter.
        if (now := monotonic()) >= last + 1:
            last = now
            with suppress(OSError):  # nobody reads it, or not yet
                os.write(descriptor, msgspec.json.encode(far) + b"\n")

    def step(name: str, total: int) -> Progress:
        told, so_far = steps(name, total), 0
        beat(step=name, done=0, total=total)

        def done(length: int) -> None:
            nonlocal so_far
            so_far += length
            told(length)
            beat(step=name, done=so_far, total=total)

        return done

    return step
