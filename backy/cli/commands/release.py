"""`backy release`: leave nothing behind where the source is."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("release")
@click.pass_obj
def command(directory: Path) -> None:
    """Remove what the source keeps for this repository, such as clones and snapshots.

    To be run before a job is given up. Revisions stay as they are; if there is a backup after all, it reads everything.
    """
    from backy.repository.repository import Repository
    from backy.retention.forget import release

    repository = Repository.open(directory)
    released = release(repository)
    click.echo("Released" if released else f"The source '{repository.config.source.type}' keeps nothing")
