"""`backy release`: clean up at the source."""

from pathlib import Path

import click

from backy.cli.output import answer


@click.command("release")
def command(directory: Path) -> None:
    """Remove what the source keeps for this repository, such as clones and snapshots.

    Run this before you give up a job. Revisions stay as they are. Another backup after that reads everything.
    """
    from backy.groups.forget import release
    from backy.repository.repository import Repository

    repository = Repository.open(directory)
    released = release(repository)
    # Not every source keeps something, and then nothing was done.
    source = repository.config.source
    nothing = f"The source '{source.type}' keeps nothing" if source else "There is no source"
    answer({"released": released}, "Released" if released else nothing)
