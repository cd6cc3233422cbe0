"""`backy init`: make a repository."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("init")
@click.argument("source_type", metavar="TYPE")
@click.argument("source", metavar="SOURCE")
@click.option("--storage", metavar="NAME", default="chunked", show_default=True, help="How images are kept.")
@click.pass_obj
def command(directory: Path, source_type: str, source: str, storage: str) -> None:
    """Make a repository that backs up SOURCE.

    TYPE is the name of an installed source, such as 'file'; SOURCE is what that type takes, such as the path of an
    image. 'backy plugins' lists the types. The directory is made if it is missing.
    """
    from backy.repository.making import make_repository

    repository = make_repository(directory, source_type, source, storage)
    click.echo(f"Made a repository in {repository.directory}")
