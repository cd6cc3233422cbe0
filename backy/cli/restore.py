"""`backy restore`: get an image back."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from backy.cli.options import revision_option


@click.command("restore")
@revision_option
@click.argument("target", metavar="TARGET")
@click.pass_obj
def command(directory: Path, specification: str, target: str) -> None:
    """Write a revision to TARGET: a file, a block device, or '-' for standard output.

    A file is made or replaced, with holes where the image has zeroes. Every chunk is checked on the way.
    """
    from backy.cli.progress import steps
    from backy.plugins.events import Events
    from backy.repository import Repository
    from backy.restore import open_target, restore, stream

    repository = Repository.open(directory)
    revision = repository.select(specification)
    with steps() as show, repository.image(revision) as image:
        progress = show("restore", image.size)
        if target == "-":
            stream(image, sys.stdout.fileno(), progress)
        else:
            with open_target(Path(target), image.size, repository.directory) as opened:
                restore(image, opened, progress)
    Events.installed().restore_finished(repository.job, revision.id, target)
