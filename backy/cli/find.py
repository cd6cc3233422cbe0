"""`backy find`: where a revision lies."""

from __future__ import annotations

from pathlib import Path

import click

from backy.cli.options import revision_option
from backy.errors import RepositoryError


@click.command("find")
@revision_option
@click.option("--id", "only_id", is_flag=True, help="Print the revision's id instead.")
@click.pass_obj
def command(directory: Path, specification: str, only_id: bool) -> None:
    """Print the absolute path of a revision's raw image.

    Only a storage that keeps raw images has one; other revisions are read by 'backy restore'.
    """
    from backy.repository import Repository

    repository = Repository.open(directory)
    revision = repository.select(specification)
    if only_id:
        click.echo(revision.id)
        return
    path = repository.raw_path(revision)
    if path is None:
        raise RepositoryError(
            f"revision {revision.id} is kept by the storage '{revision.storage}', which has no raw image; "
            f"'backy restore -r {revision.id} TARGET' writes one"
        )
    click.echo(path)
