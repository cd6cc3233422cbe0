"""`backy purge`: free the space of removed revisions."""

from pathlib import Path

import click

from backy.cli.output import answer, chosen
from backy.text.phrases import counted, size


@click.command("purge")
@click.option("--trash", is_flag=True, help="Empty the trash now, and not when the time of its revisions is over.")
@click.pass_obj
def command(directory: Path, trash: bool) -> None:
    """Free the space of chunks that no revision refers to any more.

    What has been in the trash for its time is removed first.
    """
    from backy.groups.acts import purge_all
    from backy.groups.group import opened
    from backy.repository.repository import Repository
    from backy.retention.purge import purge

    group = opened(directory)
    purged = purge_all(group, everything=trash) if group else purge(Repository.open(directory), everything=trash)
    # Files, not chunks: a file that other chunks are made of stays although its own chunk is gone.
    answer(chosen(purged, "files", "bytes"), f"Purged: {counted(purged.files, 'file')}, {size(purged.bytes)}")
