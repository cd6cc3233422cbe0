"""`backy purge`: free the space of removed revisions."""

from __future__ import annotations

from pathlib import Path

import click

from backy.cli.output import echo
from backy.text.phrases import counted, size


@click.command("purge")
@click.pass_obj
def command(directory: Path) -> None:
    """Free the space of chunks that no revision refers to any more."""
    from backy.repository.repository import Repository
    from backy.retention.purge import purge

    purged = purge(Repository.open(directory))
    # Files, not chunks: a file that other chunks are made of stays although its own chunk is gone.
    echo(f"Purged: {counted(purged.files, 'file')}, {size(purged.bytes)}")
