"""`backy scrub`: check stored data for damage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backy.cli.disks import each_disk, repository_of
from backy.cli.options import revision_of
from backy.cli.output import answer
from backy.errors import DamageError
from backy.text.phrases import counted

if TYPE_CHECKING:
    from backy.scrubbing.scrub import Scrubbed


def _duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> timedelta | None:
    """Convert a length of time such as '2h'. Callback of an option."""
    from backy.config import parse_duration

    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("scrub")
@click.argument("mode", type=click.Choice(["light", "deep"]))
@revision_of("Look at this revision only.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="MIB", help="Read so many MiB/s at most.")
@click.option("--max-duration", metavar="TIME", callback=_duration, help="Stop after this time, such as '2h'.")
@each_disk
def command(
    directory: Path,
    mode: str,
    specification: str | None,
    rate: float | None,
    max_duration: timedelta | None,
) -> None:
    """Check the stored data for damage, without the source.

    'light' checks that every file is there and has a plausible size; 'deep' reads every chunk and compares it with its
    id. A deep scrub that runs out of time continues there the next time. Revisions that refer to damaged chunks become
    distrusted.
    """
    from backy.cli.progress import steps
    from backy.repository.revision import utc_now
    from backy.scrubbing.scrub import Scrub

    repository = repository_of(directory)
    only = None if specification is None else repository.records.select(specification)
    speed = rate and rate * 2**20  # None, not 0, has no limit: click takes no 0
    with steps() as show:
        result = Scrub(repository, mode == "deep", utc_now, only, speed, max_duration, show).run()
    damaged = counted(len(result.damaged), "is damaged", "are damaged")
    rest = "" if result.complete else f" of {result.total}, then the time was over"
    text = f"Scrubbed {counted(result.chunks, 'chunk')}{rest}: {damaged}"
    answer({"mode": mode, **result.figures}, text)
    # Damage only: to run out of time is no failure, and the next scrub goes on there.
    if wrong := list(_damage(result)):
        raise DamageError("; ".join(wrong))


def _damage(result: Scrubbed) -> Iterator[str]:
    """Yield the parts of the error."""
    yield from result.problems
    if result.damaged:
        # One is enough to begin with; thousands may be on a bad disk.
        yield f"{counted(len(result.damaged), 'chunk is', 'chunks are')} damaged, the first is {result.damaged[0]}"
    if result.distrusted:
        yield f"distrusted for it: {', '.join(result.distrusted)}; 'backy reports list' has the evidence"
