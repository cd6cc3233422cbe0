"""`backy distrust`: doubt what is stored."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import click

_DATE = click.DateTime(formats=["%Y-%m-%d"])


def _day(value: datetime | None) -> date | None:
    return None if value is None else value.date()


@click.command("distrust")
@click.option("-r", "--revision", "specification", metavar="SPEC", help="Distrust this revision only.")
@click.option("-f", "--from", "first", type=_DATE, metavar="DATE", help="Distrust those of this day (UTC) and later.")
@click.option("-u", "--until", "last", type=_DATE, metavar="DATE", help="Distrust those of this day (UTC) and earlier.")
@click.pass_obj
def command(directory: Path, specification: str | None, first: datetime | None, last: datetime | None) -> None:
    """Doubt what is stored: one revision, those of some days, or all.

    While a revision is distrusted, the next backup is a full one and stores everything anew; after each backup one
    distrusted revision is verified.
    """
    from backy.locking import BACKUP_LOCK, exclusive
    from backy.repository import Repository
    from backy.revision import Trust
    from backy.trust import mark

    if specification is not None and (first or last):
        raise click.UsageError("--revision does not go with --from and --until")
    repository = Repository.open(directory)
    with exclusive(repository.directory, BACKUP_LOCK):
        revisions = repository.history() if specification is None else [repository.select(specification)]
        begin, end = _day(first) or date.min, _day(last) or date.max
        chosen = [
            revision
            for revision in revisions
            if specification is not None or begin <= revision.timestamp.astimezone(UTC).date() <= end
        ]
        for revision in chosen:
            mark(repository, revision, Trust.DISTRUSTED)
    click.echo(f"Distrusted {len(chosen)} revisions")
