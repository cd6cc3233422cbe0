"""`backy accept`: say that an image was meant to shrink."""

from pathlib import Path

import click

from backy.cli.disks import each_disk, repository_of
from backy.cli.output import echo
from backy.errors import RevisionNotFoundError


@click.command("accept")
@click.option("-r", "--revision", "specification", metavar="SPEC", help="The revision that shrank. Default: all.")
@each_disk
def command(directory: Path, specification: str | None) -> None:
    """Say that an image was meant to shrink, or to lose all data.

    The revision before has the tag 'pinned:shrunk' since then, which keeps it as long as the schedule keeps anything.
    Without the tag the revision expires by the schedule.
    """
    from backy.retention.tags import accept

    released = accept(repository_of(directory), specification)
    for revision in released:
        echo(f"{revision.id} {','.join(revision.tags)}")
    if not released and specification is not None:
        raise RevisionNotFoundError(f"no revision is held because of '{specification}'; 'backy status' shows the tags")
    if not released:
        echo("No revision is held")
