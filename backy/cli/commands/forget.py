"""`backy forget`: put revisions into the trash."""

from pathlib import Path

import click

from backy.cli.options import dry_run_option, revision_of
from backy.cli.output import answer


@click.command("forget")
@revision_of(
    "Which revision, may be repeated; the full id also removes one whose record is damaged.",
    *("-r", "--revision", "specifications"),
    required=True,  # no default: a revision is not removed because a word was forgotten
    multiple=True,
)
@click.option(
    "--force",
    is_flag=True,
    help="Forget the last good revision, many, or one whose state can not be read; needs --reason.",
)
@click.option("--reason", metavar="TEXT", help="Why; the journal keeps it.")
@dry_run_option
def command(directory: Path, specifications: tuple[str, ...], force: bool, reason: str | None, dry_run: bool) -> None:
    """Put revisions into the trash.

    'backy undelete' brings them back. 'backy purge' frees the space that only they used when their time in the trash is
    over, 7 days unless the key 'trash' says otherwise. While a backup runs, the revision that it builds upon stays.
    """
    from backy.groups.forget import forget
    from backy.groups.group import opened
    from backy.repository.repository import Repository

    if force and not (reason and reason.strip()):
        raise click.UsageError("--force needs --reason TEXT: why so much is forgotten")
    if reason and not reason.isprintable():
        raise click.UsageError("--reason has characters that can not be printed")
    found = opened(directory) or Repository.open(directory)
    gone = forget(found, specifications, reason, force=force, dry_run=dry_run)
    verb = "Would forget" if dry_run else "Forgot"
    answer({"revisions": [{"id": one} for one in gone]}, *(f"{verb} {one}" for one in gone))
