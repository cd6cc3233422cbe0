"""`backy forget`: remove a revision."""

from __future__ import annotations

from pathlib import Path

import click

from backy.cli.output import echo


@click.command("forget")
@click.option(
    "-r",
    "--revision",
    "specification",
    metavar="SPEC",
    required=True,  # no default: a revision is not removed because a word was forgotten
    help="Which revision; the full id also removes one whose record is damaged.",
)
@click.pass_obj
def command(directory: Path, specification: str) -> None:
    """Remove one revision; 'backy purge' then frees the space that only it used."""
    from backy.repository.repository import Repository
    from backy.retention.forget import forget

    echo(f"Forgot {forget(Repository.open(directory), specification)}")
