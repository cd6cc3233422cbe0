"""`backy init`: make a repository."""

from __future__ import annotations

from pathlib import Path

import click

from backy.config import JobConfig
from backy.plugins.discovery import Kind
from backy.revision import FORMAT


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
    from backy.plugins.loading import call
    from backy.repository import Repository

    config = call(Kind.SOURCE, source_type, "backy_source_config", argument=source)
    job = JobConfig(format=FORMAT, source={"type": source_type, **config}, storage={"type": storage})
    repository = Repository.initialize(directory, job)
    click.echo(f"Made a repository in {repository.directory}")
