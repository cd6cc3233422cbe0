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

    A storage that keeps raw images has one in the repository; those of others are found where 'backy mount' shows them.
    """
    from backy.mount.active import mounted_path
    from backy.repository.repository import Repository

    repository = Repository.open(directory)
    revision = repository.records.select(specification)
    if only_id:
        click.echo(revision.id)
        return
    path = repository.raw_path(revision) or mounted_path(repository, revision)
    if path is None:
        raise RepositoryError(
            f"revision {revision.id} has no file: the storage '{revision.storage}' keeps no raw images, and no mount "
            f"shows it; 'backy mount MOUNTPOINT' does, 'backy restore -r {revision.id} TARGET' writes one"
        )
    click.echo(path)
