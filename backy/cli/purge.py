"""`backy purge`: free space."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("purge")
@click.pass_obj
def command(directory: Path) -> None:
    """Free the space of chunks that no revision refers to any more."""
    import humanize

    from backy.purging import purge
    from backy.repository import Repository

    purged = purge(Repository.open(directory))
    click.echo(f"Purged: {purged.files} files, {humanize.naturalsize(purged.bytes, binary=True)}")
