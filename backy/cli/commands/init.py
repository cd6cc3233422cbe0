"""`backy init`: make a repository."""

from __future__ import annotations

from pathlib import Path

import click

from backy.cli.output import echo


@click.command("init")
@click.argument("source_type", metavar="TYPE")
@click.argument("source", metavar="SOURCE")
@click.option("--storage", metavar="NAME", default="chunked", show_default=True, help="How images are kept.")
@click.pass_obj
def command(directory: Path, source_type: str, source: str, storage: str) -> None:
    """Make a repository that backs up SOURCE.

    TYPE is the name of an installed source, such as 'file'; SOURCE is what that type takes, such as the path of an
    image. 'backy plugins' lists the types. A missing directory is made.
    """
    from backy.repository.making import make_repository

    repository = make_repository(directory, source_type, source, storage)
    # With the whole path: the directory may have come from -b, or from where the shell happened to be.
    echo(f"Made a repository in {repository.directory}")
