"""`backy init`: make a repository."""

from __future__ import annotations

import shlex
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
    image. 'backy plugins' lists the types. A missing directory is made. Prints what to do next.
    """
    from backy.repository.making import make_repository

    repository = make_repository(directory, source_type, source, storage)
    # With the whole path: the directory may have come from -b, or from where the shell happened to be.
    echo(f"Made a repository in {repository.directory}")
    backy = f"backy -b {shlex.quote(str(repository.directory))}"
    echo(f"To back up:    {backy} backup daily")
    echo(f"To get at it:  {backy} mount MOUNTPOINT, and every revision is a raw image for dd and other tools")
    if storage == "chunked" and _can_share(repository.directory):
        echo("Files can share blocks here: '--storage cow' keeps raw images without a mount, and uncompressed")


def _can_share(directory: Path) -> bool:
    """Return whether files in a directory can share blocks (reflink)."""
    from backy.errors import StorageError
    from backy.reflink import require_clones

    try:
        require_clones(directory)
    except (StorageError, OSError):
        return False  # the repository is made: this is no time for an error
    return True
