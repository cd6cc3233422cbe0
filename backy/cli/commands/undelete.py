"""`backy undelete`: get a revision back from the trash."""

from pathlib import Path

import click

from backy.cli.completion import trashed
from backy.cli.revisions import answer_with


@click.command("undelete")
@click.argument("revision_id", metavar="ID", shell_complete=trashed)
def command(directory: Path, revision_id: str) -> None:
    """Get a revision back that was forgotten, or that expired, and that the trash still has.

    It gets the tag 'manual:undeleted', so that it does not expire again. 'backy status --trash' shows what is there.
    """
    from backy.groups.forget import undelete
    from backy.groups.group import opened
    from backy.repository.repository import Repository

    revision = undelete(opened(directory) or Repository.open(directory), revision_id)
    answer_with([revision], f"{revision.id} is back, with the tags {', '.join(revision.tags)}")
