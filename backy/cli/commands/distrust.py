"""`backy distrust`: mark revisions whose stored data is in doubt."""

from datetime import datetime
from pathlib import Path

import click

from backy.cli.disks import each_disk, repository_of
from backy.cli.options import dry_run_option, revision_of
from backy.cli.revisions import answer_with
from backy.text.phrases import counted

_DATE = click.DateTime(formats=["%Y-%m-%d"])


@click.command("distrust")
@revision_of("Distrust this revision only.")
@click.option("-f", "--from", "first", type=_DATE, metavar="DATE", help="Distrust those of this day (UTC) and later.")
@click.option("-u", "--until", "last", type=_DATE, metavar="DATE", help="Distrust those of this day (UTC) and earlier.")
@click.option("--all", "everything", is_flag=True, help="Distrust all revisions.")
@dry_run_option
@each_disk
def command(
    directory: Path, specification: str | None, everything: bool, dry_run: bool, **days: datetime | None
) -> None:
    """Distrust one revision, those of some days, or all of them.

    While a revision is distrusted, the next backup is a full one and stores everything anew; after each backup one
    distrusted revision is verified.
    """
    from backy.integrity.damage import distrust

    chosen = {name: day.date() for name, day in days.items() if day}
    if specification is not None and chosen:
        raise click.UsageError("--revision does not go with --from and --until")
    # A full backup of everything is nothing that a forgotten word should cost.
    if everything == bool(specification is not None or chosen):
        raise click.UsageError("name revisions by --revision, --from or --until, or all of them by --all alone")
    distrusted = distrust(repository_of(directory), specification, **chosen, dry_run=dry_run)
    verb = "Would distrust" if dry_run else "Distrusted"
    answer_with(distrusted, f"{verb} {counted(len(distrusted), 'revision')}")
