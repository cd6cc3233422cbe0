"""`backy plan`: what a command would take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backy.cli.options import revision_option
from backy.cli.output import print_json
from backy.errors import DamageError
from backy.text.phrases import counted, length_of_time, local_time, size

if TYPE_CHECKING:
    from backy.restore.estimate import Forecast


@click.group("plan")
def command() -> None:
    """Tell what a command would take, and do nothing."""


@command.command("restore")
@revision_option
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
@click.pass_obj
def restore(directory: Path, specification: str, as_json: bool) -> None:
    """Tell how much 'backy restore' reads and writes, about how long it takes, and what it will not be able to read.

    Looks whether all files are there, and reads a few chunks to learn how fast that is; the target may be slower. What
    is damaged inside of the other files is not found: 'backy scrub deep' does that.
    """
    import time

    from backy.cli.progress import steps
    from backy.repository.repository import Repository
    from backy.restore.estimate import forecast

    repository = Repository.open(directory)
    revision = repository.records.select(specification)
    with steps() as show, repository.image(revision) as image:
        found = forecast(image, show, time.monotonic)
    if as_json:
        content = {
            "revision": revision.id,
            "size": found.size,
            "data": found.data,
            "stored": found.stored,
            "seconds": found.estimate,
            "damaged": sorted(found.damaged),
        }
        print_json(content)
    else:
        click.echo(f"Revision  {revision.id} of {local_time(revision.timestamp, zone=True)}")
        _show(found)
    if found.damaged:
        first = min(found.damaged)
        raise DamageError(
            f"{counted(len(found.damaged), 'chunk')} can not be restored, the first is {found.damaged[first]}; 'backy "
            "restore --salvage FILE' restores the rest"
        )


def _show(found: Forecast) -> None:
    click.echo(f"Image     {size(found.size)}, of which {size(found.data)} are data")
    click.echo(f"Stored    {'not known' if found.stored is None else size(found.stored)}")
    if found.estimate is not None:
        rate = size(int(found.sampled / max(found.seconds, 1e-6)))
        about = length_of_time(max(found.estimate, 1))
        click.echo(f"Estimate  {about} to read, at {rate}/s as {size(found.sampled)} were read just now")
